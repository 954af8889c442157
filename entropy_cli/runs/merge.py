"""Add the states of shards up to the state and result of the whole run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from entropy_cli.core.errors import StateError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.entropy.quantity import Cluster
from entropy_cli.entropy.stopping import history_point
from entropy_cli.images.plan import BLOCK
from entropy_cli.results.evaluation import Evaluation
from entropy_cli.results.schema import Result
from entropy_cli.runs.build_evaluation import evaluation_or_result
from entropy_cli.runs.ladder import ladder_of_shards
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.state import RunState
from entropy_cli.streaming.state_file import check_same, load


@dataclass(frozen=True)
class Merged:
    """The sum of several states."""

    state: RunState
    result: Result | Evaluation


def merge(
    paths: Sequence[Path], *, partial: bool, command: str, bars: Bars, with_ladder: bool = False
) -> Merged:
    """Add states of the same run that have no block in common.

    Args:
        paths: the states.
        partial: whether blocks may be missing.
        command: for the record.
        bars: makes progress bars.
        with_ladder: whether to build the ladder of the tokens that the shards kept.

    Raises:
        StateError: a state can't be read, is of other settings or temperatures, overlaps another, or
            blocks are missing.
    """
    total: RunState | None = None
    owner_N: list[Path | None] = []
    shards: list[tuple[int, int] | None] = []
    with bars("adding states", len(paths), "state") as bar:
        for path in paths:
            state = load(path)
            if not state.settings.has_entropies:
                raise StateError(
                    f"{path}: is of an evaluation of --tokens, whose result needs the --result too. Run "
                    "`evaluate` with them and this --state again."
                )
            if total is None:
                blocks = len(state.progress.blocks_done)
                total = RunState(Progress.start(blocks), state.settings, state.metadata, None)
                owner_N = [None] * blocks
            check_same(path, state.settings, total.settings, whose=str(paths[0]))
            _claim(path, state.progress.blocks_done, owner_N)
            _add(path, state.progress, total.progress, total.settings.cluster)
            shards.append(state.shard)
            bar.update(1)
    assert total is not None
    if not partial:
        _check_whole(total.progress.blocks_done, total.settings.images, shards)
    if not total.progress.images:
        raise StateError(
            "none of the states has an image that could be read: there is nothing to estimate."
        )
    provenance = {
        "command": command,
        "states": [str(path.resolve()) for path in paths],
        "runs": total.progress.runs,
    }
    ladder = ladder_of_shards(paths, total, bars, {"command": command}) if with_ladder else None
    return Merged(total, evaluation_or_result(total, None, None, provenance, ladder))


def _claim(path: Path, done_N: Tensor, owner_N: list[Path | None]) -> None:
    """Note which state each block is from; raise StateError if another state has it too."""
    for block in done_N.nonzero().flatten().tolist():
        if owner_N[block] == path:
            raise StateError(f"{path}: is given twice. Give each state once.")
        if owner_N[block] is not None:
            raise StateError(
                f"{path}: has images that {owner_N[block]} has too (block {block}), they would count "
                "twice. Give each shard's state once, of one way of cutting the run."
            )
        owner_N[block] = path


def _add(path: Path, part: Progress, total: Progress, cluster: Cluster) -> None:
    """Add a state's progress to the total, in place."""
    total.blocks_done |= part.blocks_done
    total.digest_N += part.digest_N
    total.nats_N += part.nats_N
    total.failed += part.failed
    total.images += part.images
    total.runs += part.runs
    total.precision_check = total.precision_check or part.precision_check
    total.model_check = total.model_check or part.model_check
    if part.temperatures is None:
        return
    if total.temperatures is None:
        total.temperatures, total.pilot = part.temperatures, part.pilot
    if part.temperatures != total.temperatures:
        s = next(s for s, t in enumerate(part.temperatures) if t != total.temperatures[s])
        raise StateError(
            f"{path}: has temperature {part.temperatures[s]} at scale {s}, the others "
            f"{total.temperatures[s]}: they were fitted on machines that round differently. "
            "Run its shard again with the others' --batch-size and device."
        )
    if part.tally is None:
        return
    total.tally = part.tally if total.tally is None else total.tally + part.tally
    if part.losses is not None:
        total.losses = part.losses if total.losses is None else total.losses + part.losses
    if part.images:
        total.history.append(history_point(*total.accumulators[0].watched, cluster))


def _check_whole(done_N: Tensor, images: int, shards: Sequence[tuple[int, int] | None]) -> None:
    missing = (~done_N).nonzero().flatten()
    if not len(missing):
        return
    full = torch.full((len(done_N),), BLOCK)
    full[-1] = images - BLOCK * (len(done_N) - 1)
    raise StateError(
        f"{int(full[missing].sum())} of {images} images are in none of the states: {_missing(shards)}. "
        "Finish what is missing and give its state too, or merge what is there with --partial."
    )


def _missing(shards: Sequence[tuple[int, int] | None]) -> str:
    """Name the shards whose state is missing, or say that some are not finished."""
    numbers = {shard[1] for shard in shards if shard is not None}
    if len(numbers) != 1 or None in shards:
        return "the states are not of all shards, or not finished"
    (number,) = numbers
    there = {shard[0] for shard in shards if shard is not None}
    absent = [str(i) for i in range(number) if i not in there]
    if not absent:
        return "not all of these shards are finished"
    listed = ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")
    return f"there is none of shard {listed} of {number}"
