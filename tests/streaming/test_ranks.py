"""Processes of one run meet: what was saved counts once, and every part of what each did."""

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.streaming import ranks, state_file
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.ranks import RankLost, Ranks, join
from entropy_cli.streaming.state import RunState
from tests.streaming.test_state_file import METADATA, SETTINGS


class Meeting:
    """Where threads that stand for processes exchange values."""

    def __init__(self, world):
        self.barrier, self.values = threading.Barrier(world, timeout=20), [None] * world

    def exchange(self, rank, value):
        self.values[rank] = value
        self.barrier.wait()
        values = list(self.values)
        self.barrier.wait()
        return values


@dataclass(frozen=True)
class Threads(Ranks):
    """Ranks of threads in place of processes."""

    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def all_gather(self, value):
        return self.meeting.exchange(self.rank, value)

    def _together(self, operation, tensor, *first):
        values = self.all_gather(tensor.clone())
        return values[0] if operation is dist.broadcast else torch.stack(values).sum(0)


def test_what_was_saved_counts_once_and_the_parts_of_all_are_added(run, tmp_path):
    settings = replace(SETTINGS, temperature=[1.0])
    whole, saved = run(Progress.start(5), range(5), 4), run(Progress.start(5), [0, 2], 4)
    saved.blocks_done[3], saved.failed = True, [(f"{i}.jpg", "why") for i in range(16)]
    path, meeting = tmp_path / "s", Meeting(3)
    state_file.save(path, RunState(saved, settings, METADATA, None))
    own = [run(Progress.start(5), blocks, 4) for blocks in ([1], [], [4])]

    def of_rank(rank):
        ranks = Threads(rank, 3, meeting=meeting)
        with contextlib.ExitStack() as stack:
            progress = state_file.resume(path, settings, None, ranks, stack, fail_at_first=False)
            done = own[rank]
            progress.tally = done.tally if progress.tally is None else progress.tally + done.tally
            progress.images += done.images
            progress.digest_N += done.digest_N
            progress.blocks_done |= done.blocks_done
            return progress.reduce(ranks)

    with ThreadPoolExecutor(3) as threads:
        total = next(threads.map(of_rank, range(3)))
    assert total.images == 70 - 16 and total.failed == saved.failed and total.blocks_done.all()
    expected_N = whole.digest_N.clone()
    expected_N[3 * 16 : 4 * 16] = 0
    assert torch.equal(total.digest_N, expected_N) and expected_N.count_nonzero() == 54
    assert int(total.tally.images_G.sum()) == 54


@pytest.mark.parametrize(
    "name, value",
    [
        ("WORLD_SIZE", "x"),
        ("WORLD_SIZE", "0"),
        ("RANK", ""),
        ("RANK", "2"),
        ("MASTER_PORT", "abc"),
        ("MASTER_PORT", "70000"),
        ("LOCAL_RANK", "-1"),
        ("LOCAL_WORLD_SIZE", "9" * 5000),
    ],
)
def test_a_variable_of_torchrun_that_is_impossible_is_named(monkeypatch, name, value):
    given = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "29500", "LOCAL_RANK": "0"}
    given |= {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "2", name: value}
    for each, text in given.items():
        monkeypatch.setenv(each, text)
    with pytest.raises(EntropyCliError, match=f"^{name}: got ") as caught, join():
        pass
    assert len(str(caught.value)) < 250


def test_a_process_whose_torchrun_is_gone_ends(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    of_torchrun = {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in (address | started | of_torchrun).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "FIRST_TIMEOUT", timedelta(seconds=1))
    with pytest.raises(RankLost, match="resume from there"), join():
        pass
