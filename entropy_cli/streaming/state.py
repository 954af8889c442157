"""The state of a run in memory; read from a file, its parts are checked against each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from entropy_cli.core.documents import from_json
from entropy_cli.entropy.accumulator import Accumulator
from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.entropy.loss_tally import LossTally
from entropy_cli.entropy.quantity import HistoryPoint, Labels, LabelSource, ModelInfo
from entropy_cli.entropy.sums import SumsLayout
from entropy_cli.entropy.tally import Tally
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.images.plan import BLOCK, number_of_blocks
from entropy_cli.streaming.progress import Progress, RunRecord
from entropy_cli.streaming.run_settings import RunSettings
from entropy_cli.tokenizers.base import Scale, Tokenizer, sums_layout


@dataclass(frozen=True)
class ModelMetadata:
    """What a result says of the generator that a run evaluates; kept in the state, for merging."""

    info: ModelInfo
    label_source: LabelSource
    classes_seen: int
    label_notes: list[str]


@dataclass(frozen=True)
class RunMetadata:
    """What a result says of a run beside its numbers; kept in the state, for merging."""

    latent_dim: int
    scales: list[Scale]
    distance_dims: list[int | None]  # of each codebook; None where it has no distances to fit T to
    temperature_asked: bool  # whether the user gave the temperature
    temperature_default: str  # where the family's default is from
    split: str
    images_found: int  # before any limit
    provenance: dict[str, Any]  # where checkpoint and images are, and notes on them
    labels: Labels = "unknown"  # that models on its tokens are trained on
    shared_codebook: bool = False  # whether all scales have the same codes
    model: ModelMetadata | None = None  # the generator that is evaluated

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        *,
        split: str,
        images_found: int,
        temperature_given: bool,
        provenance: dict[str, Any],
        model: ModelMetadata | None = None,
    ) -> "RunMetadata":
        """Describe a run that is about to start."""
        spec = tokenizer.spec
        codebooks = [tokenizer.codebook(s) for s in range(len(spec.scales))]
        return cls(
            latent_dim=spec.latent_dim,
            scales=list(spec.scales),
            distance_dims=[c.latent_dim if c.has_distances else None for c in codebooks],
            temperature_asked=temperature_given,
            temperature_default=spec.temperature_source,
            split=split,
            images_found=images_found,
            provenance=provenance,
            labels=spec.labels,
            shared_codebook=_are_equal(codebooks),
            model=model,
        )

    def layout(self, settings: RunSettings, temperatures: int) -> SumsLayout:
        """Return the sizes of a run's sums."""
        return sums_layout(self.scales, settings.groups, temperatures)

    def losses_layout(self, settings: RunSettings, temperatures: int) -> SumsLayout | None:
        """Return the sizes of the sums of losses; None without a generator."""
        soft = temperatures if settings.has_soft_losses else 0
        return self.layout(settings, soft) if settings.has_losses else None

    @property
    def vocabularies(self) -> list[Vocabulary]:
        """Return the vocabulary of each scale."""
        return [scale.vocabulary for scale in self.scales]


def _are_equal(codebooks: Sequence[Codebook | Grid]) -> bool:
    """Return whether all hold the same vectors, or are the same grid."""
    first, *others = codebooks

    def is_first(other: Codebook | Grid) -> bool:
        if isinstance(other, Codebook) and isinstance(first, Codebook):
            return other is first or torch.equal(other.codes_VC, first.codes_VC)
        if isinstance(other, Grid) and isinstance(first, Grid):
            return other.coordinates == first.coordinates
        return False

    return all(map(is_first, others))


@dataclass(frozen=True)
class RunState:
    """Everything that is saved of a run."""

    progress: Progress
    settings: RunSettings  # equal in another run that resumes from this one
    metadata: RunMetadata
    shard: tuple[int, int] | None  # (I, N) if it is the I-th of N parts of the images


@dataclass(frozen=True)
class StateDocument:
    """The JSON part of a state's file; `accumulators` has the version of the sums by their name."""

    settings: dict[str, Any]
    about: RunMetadata
    shard: tuple[int, int] | None
    temperatures: list[list[float]] | None
    failed: list[tuple[str, str]]
    history: list[HistoryPoint]
    pilot: dict[str, Any] | None
    precision_check: dict[str, Any] | None
    accumulators: dict[str, dict[str, Any]]
    model_check: dict[str, Any] | None = None
    runs: list[RunRecord] = field(default_factory=list)  # missing from older states


def state_from_file(content: Any, tensors: Mapping[str, Tensor]) -> RunState:  # noqa: ANN401 - JSON
    """Rebuild a state from a StateDocument, and tensors; the tally's have its name before theirs.

    Raises:
        ValueError, KeyError, TypeError: contents that no run writes, or that contradict the settings.
    """
    found = from_json(content, StateDocument, unknown=True)
    settings, metadata = RunSettings.from_json(found.settings), found.about
    if [scale.patch_num for scale in metadata.scales] != settings.patch_nums:
        raise ValueError("its scales are not those of its settings")
    done_N = tensors["blocks_done"]
    if done_N.dtype != torch.bool or done_N.shape != (number_of_blocks(settings.images),):
        raise ValueError(f"its blocks are not those of {settings.images} images")
    digest_N = tensors.get("digests", torch.zeros(BLOCK * len(done_N), dtype=torch.int64))
    if digest_N.dtype != torch.int64 or digest_N.shape != (BLOCK * len(done_N),):
        raise ValueError(f"its digests are not those of {settings.images} images")
    images = BLOCK * int(done_N.sum()) - len(found.failed)
    if len(done_N) and done_N[-1]:  # which may be short
        images -= BLOCK * len(done_N) - settings.images
    if found.temperatures is not None:
        _check_temperatures(found.temperatures, settings)
    for record, keys in (
        (found.pilot, ("images", "hard", "steps", "ended")),
        (found.precision_check, ("images",)),
        (found.model_check, ("images", "reference", "cross_entropy_difference")),
    ):
        if record is not None and not all(key in record for key in keys):
            raise ValueError("it lacks a part of what was measured on the first images")
    nats_N = tensors.get("nats", torch.zeros(BLOCK * len(done_N), dtype=torch.float64))
    if nats_N.dtype != torch.float64 or nats_N.shape != (BLOCK * len(done_N),):
        raise ValueError(f"its losses are not those of {settings.images} images")
    tally, losses = _sums(found, tensors, settings, images)
    progress = Progress(
        done_N,
        images,
        found.temperatures,
        tally,
        losses,
        found.failed,
        found.history,
        found.pilot,
        found.precision_check,
        found.model_check,
        digest_N,
        nats_N,
        found.runs,
    )
    return RunState(progress, settings, metadata, found.shard)


def _check_temperatures(found: list[list[float]], settings: RunSettings) -> None:
    given = settings.temperature
    fit = (
        len(values) == len(given)
        and min(values) > 0
        and all(choice in ("auto", t) for choice, t in zip(given, values, strict=True))
        for values in found
    )
    if len(found) != len(settings.patch_nums) or not all(fit):
        raise ValueError("its temperatures are not those of its settings")


def _sums(
    found: StateDocument, tensors: Mapping[str, Tensor], settings: RunSettings, images: int
) -> tuple[Tally | None, LossTally | None]:
    """Rebuild the sums of a run: those of its settings, and no others."""
    versions = {name: section["version"] for name, section in found.accumulators.items()}
    if not versions and not images:
        return None, None
    kinds: list[type[Accumulator]] = [Tally] if settings.has_entropies else []
    kinds += [LossTally] if settings.has_losses else []
    if versions != {kind.NAME: kind.VERSION for kind in kinds}:
        raise ValueError(f"it has no sums of its {images} images in a version that this program reads")
    if found.temperatures is None:
        raise ValueError("it has sums, but no temperatures")
    number = len(found.temperatures[0])
    layout, losses = found.about.layout(settings, number), found.about.losses_layout(settings, number)
    return (
        Tally.from_state_dict(_named(tensors, Tally.NAME), layout, images)
        if settings.has_entropies
        else None,
        LossTally.from_state_dict(_named(tensors, LossTally.NAME), losses, images) if losses else None,
    )


def _named(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors of one accumulator, by their own names."""
    prefix = f"{name}."
    return {key[len(prefix) :]: t for key, t in tensors.items() if key.startswith(prefix)}
