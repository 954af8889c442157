"""The processes of one run that torchrun started, and the collective operations between them."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.signals import Interrupted
from entropy_cli.entropy.accumulator import Sums

TIMEOUT = timedelta(minutes=30)  # how long a process that is alive may keep the others waiting
FIRST_TIMEOUT = timedelta(minutes=1)  # the same for the first question, which needs no work
MAX_PROCESSES = 2**20
# Options that each process of a run may be given in words of its own.
OWN_WORDS = ("data", "checkpoint", "latents", "temperature_from", "device", "workers")
SHOWN = 60  # characters of a setting in a message
Value = TypeVar("Value")


class RankLost(EntropyCliError):  # noqa: N818 - an event; the base says that it is an error
    """Another process of the run is gone, so that no collective operation can end."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run; alone unless torchrun started several.

    Every method that has to do with the others must be called by all of them, in the same order. What
    travels is on the CPU: tallies come together only when they are saved.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1  # processes on this machine

    @property
    def first(self) -> bool:
        """Return whether this is the process that writes and reports."""
        return self.rank == 0

    def all_reduce_sum(self, numbers: Sequence[int]) -> list[int]:
        """Sum each number over the processes."""
        return self.all_reduce(torch.tensor(list(numbers), dtype=torch.int64)).tolist()

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the processes; the result is on its device."""
        return self._together(dist.all_reduce, tensor)

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Return the first process's tensor, on this tensor's device."""
        return self._together(dist.broadcast, tensor, 0)

    def reduce(self, sums: Sums) -> Sums:
        """Add up sums over all processes, on the CPU; only the first may use the result."""
        tensors = sums.to("cpu").state_dict()
        for name, tensor in tensors.items():
            if name not in sums.CONSTANTS:
                tensors[name] = self._together(dist.reduce, tensor, 0)
        return type(sums)(**tensors)

    def _together(self, operation: Callable[..., object], tensor: Tensor, *first: int) -> Tensor:
        """Apply a collective operation to a copy on the CPU; return it on the tensor's device."""
        if self.world == 1:
            return tensor
        copy = tensor.detach().cpu().clone()
        with _others():
            operation(copy, *first)
        return copy.to(tensor.device)

    def all_gather(self, value: Value) -> list[Value]:
        """Return the value of every process."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        with _others():
            dist.all_gather_object(values, value)
        return values

    def broadcast_from_first(self, value: Value) -> Value:
        """Return the first process's value."""
        return self.all_gather(value)[0]

    def check_alike(self, work: Mapping[str, object]) -> None:
        """Compare what the processes are about to do, which would otherwise wait for each other.

        Raises:
            EntropyCliError: a value differs.
            RankLost: a process does not answer within a minute.
        """
        if self.world == 1:
            return
        mine = {name: repr(value) for name, value in work.items()}
        found: list[Any] = [None] * self.world
        with _others():
            group: Any = dist.new_group(timeout=FIRST_TIMEOUT, backend="gloo")
            dist.all_gather_object(found, mine, group=group)
        for rank, theirs in enumerate(found):
            for name in sorted({*theirs, *found[0]}):
                got, expected = (values.get(name, "none")[:SHOWN] for values in (theirs, found[0]))
                if theirs.get(name) != found[0].get(name):
                    raise EntropyCliError(
                        f"process {rank} of this run has {name} {got}, process 0 has {expected}. Start "
                        "all of them with the same files and options."
                    )

    def raise_any(self, failure: BaseException | None) -> None:
        """Raise in all processes what failed in any, an error that the user can mend first."""
        found = [error for error in self.all_gather(failure) if error is not None]
        if found:
            raise max(found, key=lambda error: isinstance(error, EntropyCliError))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise in all processes the error or interruption that the block raised in any of them."""
        failure = None
        try:
            yield
        except (EntropyCliError, Interrupted) as error:
            failure = error
        self.raise_any(failure)


def work_of(command: str, config: object) -> dict[str, object]:
    """Return what all processes of a run must be given alike: inputs are compared by their content."""
    given: dict[str, object] = {}
    for name, value in vars(config).items():
        if name not in OWN_WORDS:
            parts = vars(value) if is_dataclass(value) else {}
            given |= {f"{name}.{part}": parts[part] for part in parts} or {name: value}
    return {**given, "command": command}


@contextmanager
def join(*, on_gpus: bool = False) -> Iterator[Ranks]:
    """Join the other processes, if torchrun started this one; with `on_gpus` also their GPUs.

    Raises:
        EntropyCliError: the variables that torchrun sets are not all there, or have impossible values.
        RankLost: another process is gone.
    """
    world = _variable("WORLD_SIZE", 1, MAX_PROCESSES, "1")
    if world == 1 or not dist.is_torchelastic_launched():
        yield Ranks()
        return
    _variable("RANK", 0, world - 1)
    _variable("MASTER_PORT", 1, 2**16 - 1)
    local = _variable("LOCAL_RANK", 0, world - 1), _variable("LOCAL_WORLD_SIZE", 1, world)
    try:
        gpus = on_gpus and torch.cuda.is_available() and dist.is_nccl_available()
        # Torchrun's store is there before its processes are: one that can't be reached is gone.
        store, rank, _ = next(rendezvous("env://", timeout=FIRST_TIMEOUT))
        store.set_timeout(TIMEOUT)
        backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        _lost(error)
    try:
        yield Ranks(dist.get_rank(), world, *local)
    finally:
        dist.destroy_process_group()


def _variable(name: str, least: int, most: int, default: str = "") -> int:
    """Return the number in a variable that torchrun sets."""
    text = os.environ.get(name) or default
    if text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most:
        return int(text)
    raise EntropyCliError(
        f"{name}: got {text[:SHOWN]!r}, expected a whole number from {least} to {most}, as torchrun "
        "sets it. Start with torchrun, or unset WORLD_SIZE."
    )


@contextmanager
def _others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        _lost(error)


@contextmanager
def named_if_lost() -> Iterator[None]:
    """Raise RankLost for errors of a collective operation inside torch, such as a backward pass.

    Raises:
        RankLost: another process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            _lost(error)
        raise


def _lost(error: Exception) -> NoReturn:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise RankLost(
        "another process of this run has ended or does not answer; its own last line says why "
        f"({reason[:120]}). What was saved last is intact: resume from there."
    ) from error
