"""The state of a run in memory; read from a file, its parts are checked against each other."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from entropy_cli.entropy.quantity import HistoryPoint
from entropy_cli.images.plan import BLOCK, number_of_blocks
from entropy_cli.streaming.accumulator import Accumulator
from entropy_cli.streaming.progress import ACCUMULATORS, Progress
from entropy_cli.streaming.run_metadata import RunMetadata
from entropy_cli.streaming.run_settings import RunSettings
from entropy_cli.tokenizers.base import sums_layout


@dataclass(frozen=True)
class RunState:
    """Everything that is saved of a run.

    Attributes:
        settings: must be equal for another run to resume from this one.
        shard: (I, N) if it is the I-th of N parts of the images.
    """

    progress: Progress
    settings: RunSettings
    metadata: RunMetadata
    shard: tuple[int, int] | None


def state_from_file(meta: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> RunState:
    """Rebuild a state from the contents of its file.

    Args:
        meta: its meta data.
        tensors: by name; those of an accumulator have its name and a dot before theirs.

    Raises:
        ValueError, KeyError, TypeError: contents that no run writes, or that contradict the settings.
    """
    settings = RunSettings.from_json(meta["settings"])
    metadata = RunMetadata.from_json(meta["about"])
    if [scale.patch_num for scale in metadata.scales] != settings.patch_nums:
        raise ValueError("its scales are not those of its settings")
    failed = [(str(name), str(reason)) for name, reason in meta["failed"]]
    blocks_done = _blocks_done(tensors["blocks_done"], settings.images)
    images = _images_in(blocks_done, settings.images) - len(failed)
    temperatures = _temperatures(meta["temperatures"], settings, len(metadata.scales))
    progress = Progress(
        blocks_done=blocks_done,
        images=images,
        temperatures=temperatures,
        accumulators=_accumulators(
            meta["accumulators"], tensors, settings, metadata, temperatures, images
        ),
        failed=failed,
        history=[HistoryPoint(**entry) for entry in meta["history"]],
        pilot=_record(meta["pilot"], ("images", "hard", "steps", "ended")),
        precision_check=_record(meta["precision_check"], ("images",)),
    )
    shard = None if meta["shard"] is None else (int(meta["shard"][0]), int(meta["shard"][1]))
    return RunState(progress, settings, metadata, shard)


def _blocks_done(done_N: Tensor, images: int) -> Tensor:
    if done_N.dtype != torch.bool or done_N.shape != (number_of_blocks(images),):
        raise ValueError(f"its blocks are not those of {images} images")
    return done_N


def _images_in(done_N: Tensor, images: int) -> int:
    """Count the images of the blocks that are done, the last of which may be short."""
    if not len(done_N):
        return 0
    short = BLOCK * len(done_N) - images
    return BLOCK * int(done_N.sum()) - (short if bool(done_N[-1]) else 0)


def _temperatures(
    found: Any,  # noqa: ANN401 - JSON
    settings: RunSettings,
    scales: int,
) -> list[list[float]] | None:
    if found is None:
        return None
    given = settings.temperature
    for values in found:
        positive = all(isinstance(t, float) and 0 < t < math.inf for t in values)
        if (
            not positive
            or len(values) != len(given)
            or any(choice not in ("auto", t) for choice, t in zip(given, values, strict=True))
        ):
            raise ValueError("its temperatures are not those of its settings")
    if len(found) != scales:
        raise ValueError("its temperatures are not of its scales")
    return [list(values) for values in found]


def _accumulators(
    sections: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    settings: RunSettings,
    metadata: RunMetadata,
    temperatures: list[list[float]] | None,
    images: int,
) -> dict[str, Accumulator]:
    kinds = {kind.NAME: kind for kind in ACCUMULATORS}
    if strange := [name for name, part in sections.items() if _version(kinds, name) != part["version"]]:
        raise ValueError(f"its {strange[0]} is of a version that this program does not read")
    if not sections and images:
        raise ValueError(f"it has no sums of its {images} images")
    if not sections:
        return {}
    if temperatures is None:
        raise ValueError("it has sums, but no temperatures")
    layout = sums_layout(metadata.scales, settings.groups, len(temperatures[0]))
    found: dict[str, Accumulator] = {}
    for name in sections:
        prefix = f"{name}."
        own = {key[len(prefix) :]: t for key, t in tensors.items() if key.startswith(prefix)}
        found[name] = kinds[name].from_state_dict(own, layout, images)
    return found


def _version(kinds: Mapping[str, type[Accumulator]], name: str) -> int | None:
    return kinds[name].VERSION if name in kinds else None


def _record(found: Any, keys: tuple[str, ...]) -> dict[str, object] | None:  # noqa: ANN401 - JSON
    """Check that a record has these keys, if there is one."""
    if found is not None and not all(key in found for key in keys):
        raise ValueError("it lacks a part of what was measured on the first images")
    return found
