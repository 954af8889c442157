"""The program and the plain loop, timed in turn, each in a process of its own."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Literal

import torch

from entropy_cli.commands.bench.contenders import Arm, Ours, PlainLoop, Workload
from entropy_cli.commands.bench.counts import wait
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.tokenizers.precision import matmul_precision

STAGES = ("decode", "encoder", "quantiser", "end to end")
ArmName = Literal["entropy-cli", "plain"]
ARMS: dict[ArmName, Callable[[Workload], Arm]] = {"entropy-cli": Ours, "plain": PlainLoop}


class Contender:
    """An arm in its own process, so that its memory and its allocator are its own."""

    def __init__(self, name: ArmName, workload: Workload) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, workload))
        self._process.start()
        theirs.close()
        self.images: int = self._answer()

    def config(self, what: str, *args: object) -> Any:  # noqa: ANN401 - as various as the questions
        """Call one of the arm's methods there."""
        self._ours.send((what, args))
        return self._answer()

    def seconds(self, stage: str) -> float:
        """How long a stage takes for all images."""
        return float(self.config("_seconds", stage.replace(" ", "_")))

    def _answer(self) -> Any:  # noqa: ANN401
        try:
            answer = self._ours.recv()
        except EOFError:
            self._process.join()
            raise EntropyCliError(
                f"a benchmark process died with exit code {self._process.exitcode}, perhaps for want of "
                "memory. Try fewer --images or a smaller --batch-size."
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End the process."""
        self._ours.close()
        self._process.join(5)
        self._process.kill()


@torch.inference_mode()
@matmul_precision(tf32=False)
def _serve(connection: Connection, name: ArmName, workload: Workload) -> None:
    """Answer calls until the other end is closed."""
    try:
        arm = ARMS[name](workload)
        connection.send(len(arm.img_B3HW))
        while True:
            what, args = connection.recv()
            connection.send(_timed(arm, *args) if what == "_seconds" else getattr(arm, what)(*args))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except EntropyCliError as error:
        connection.send(error)


def _timed(arm: Arm, stage: str) -> float:
    """Seconds for all images once."""
    wait(arm.device)
    start = time.perf_counter()
    getattr(arm, stage)()
    wait(arm.device)
    seconds = time.perf_counter() - start
    return seconds / arm.repeats if stage == "decode" else seconds


def rounds(
    contenders: Sequence[Contender], stages: Sequence[str], number: int, advance: Callable[[int], object]
) -> dict[str, list[list[float]]]:
    """Seconds for each stage, contender and round, the contenders taking turns.

    Each does every stage once before, untimed.
    """
    seconds: dict[str, list[list[float]]] = {stage: [[] for _ in contenders] for stage in stages}
    for stage in stages:
        for turn in range(-1, number):
            for taken, contender in zip(seconds[stage], contenders, strict=True):
                duration = contender.seconds(stage)
                if turn >= 0:
                    taken.append(duration)
                advance(1)
    return seconds
