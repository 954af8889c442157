"""The program and the baseline, timed in turn, each in a process of its own."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Literal

import torch

from entropy_cli.commands.bench.contenders import Baseline, Contender, EntropyCli, Workload
from entropy_cli.commands.bench.roofline import synchronize
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.tokenizers.precision import matmul_precision

STAGES = ("decode", "encoder", "quantiser", "end to end")
ContenderName = Literal["entropy-cli", "plain"]
CONTENDERS: dict[ContenderName, Callable[[Workload], Contender]] = {
    "entropy-cli": EntropyCli,
    "plain": Baseline,
}


class ContenderProcess:
    """A contender in a process of its own, with its own memory and allocator."""

    def __init__(self, name: ContenderName, workload: Workload) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, child = context.Pipe()
        self._process = context.Process(target=_serve, args=(child, name, workload))
        self._process.start()
        child.close()
        self.images: int = self._receive()

    def call(self, method: str, *args: object) -> Any:  # noqa: ANN401 - the type depends on the method
        """Call a method of the contender in its process and return the result."""
        self._connection.send((method, args))
        return self._receive()

    def seconds(self, stage: str) -> float:
        """Time a stage once over all images."""
        return float(self.call("_seconds", stage.replace(" ", "_")))

    def _receive(self) -> Any:  # noqa: ANN401
        try:
            answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise EntropyCliError(
                f"a benchmark process died with exit code {self._process.exitcode}, perhaps out of "
                "memory. Give fewer --images or a smaller --batch-size."
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(5)
        self._process.kill()


@torch.inference_mode()
@matmul_precision(tf32=False)
def _serve(connection: Connection, name: ContenderName, workload: Workload) -> None:
    """Serve calls until the other end is closed."""
    try:
        contender = CONTENDERS[name](workload)
        connection.send(len(contender.img_B3HW))
        while True:
            method, args = connection.recv()
            timed = method == "_seconds"
            result = _time(contender, *args) if timed else getattr(contender, method)(*args)
            connection.send(result)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except EntropyCliError as error:
        connection.send(error)


def _time(contender: Contender, stage: str) -> float:
    """Return the seconds that a stage takes for all images once."""
    synchronize(contender.device)
    start = time.perf_counter()
    getattr(contender, stage)()
    synchronize(contender.device)
    seconds = time.perf_counter() - start
    return seconds / contender.repeats if stage == "decode" else seconds


def time_rounds(
    contenders: Sequence[ContenderProcess],
    stages: Sequence[str],
    rounds: int,
    advance: Callable[[int], object],
) -> dict[str, list[list[float]]]:
    """Return the seconds of each stage, contender and round, the contenders alternating.

    Each contender first runs every stage once, untimed.
    """
    seconds: dict[str, list[list[float]]] = {stage: [[] for _ in contenders] for stage in stages}
    for stage in stages:
        for turn in range(-1, rounds):
            for durations, contender in zip(seconds[stage], contenders, strict=True):
                duration = contender.seconds(stage)
                if turn >= 0:
                    durations.append(duration)
                advance(1)
    return seconds
