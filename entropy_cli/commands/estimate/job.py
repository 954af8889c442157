"""A request with everything opened, listed and checked."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from entropy_cli.commands.estimate.config import EstimateConfig
from entropy_cli.commands.estimate.inputs import Inputs, open_inputs
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.images.image_set import GROUPS, ImageSet
from entropy_cli.images.latents import LatentSet
from entropy_cli.images.plan import BLOCK, number_of_blocks, shard_blocks
from entropy_cli.streaming.device import check_precision, choose_device, choose_precision
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.streaming.run_metadata import RunMetadata
from entropy_cli.streaming.saved import Saved
from entropy_cli.streaming.state import settings_fingerprint
from entropy_cli.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What is to be done, on what, with what; `settings` is what changes the number."""

    config: EstimateConfig
    ranks: Ranks
    device: torch.device
    inputs: Inputs
    settings: dict[str, Any]
    about: RunMetadata

    @property
    def tokenizer(self) -> Tokenizer:
        """In float32, on the CPU."""
        return self.inputs.tokenizer

    @property
    def images(self) -> ImageSet | LatentSet:
        """Which are to be read."""
        return self.inputs.images

    @property
    def blocks(self) -> range:
        """The blocks of this run, done or not."""
        return shard_blocks(number_of_blocks(len(self.images)), self.config.shard)

    def saved(self, progress: Progress) -> Saved:
        """The state of the run, when it has come so far."""
        return Saved(progress, self.settings, self.about, self.config.shard)


def prepare(config: EstimateConfig, bars: Bars, ranks: Ranks) -> Job:
    """Open the checkpoint, list the images, and settle everything that changes the number.

    Raises:
        EntropyCliError: any of it can't be done, or the processes of the run see different things.
    """
    device = choose_device(config.device, ranks.local_rank if ranks.world > 1 else None)
    # Of latents there is no encoder that could be less precise.
    precision = config.precision or ("fp32" if config.latents else choose_precision(device))
    check_precision(precision, device)
    inputs = open_inputs(config, bars)
    images = inputs.images
    if ranks.first:
        of = config.latents.codebook if config.latents else config.checkpoint
        for note in inputs.provenance["checkpoint_notes"]:
            logger.warning("%s: %s", of, note)
        if isinstance(images, ImageSet) and images.note:
            logger.warning("%s", images.note)
    settings = {
        **inputs.identity,
        **settings_of(inputs.tokenizer, config.temperatures, images.seed),
        "images_fingerprint": images.fingerprint(),
        "images": len(images),
        "precision": precision,
        "block": BLOCK,
    }
    _check_alike(settings, ranks)
    asked = config.temperatures is not None
    about = RunMetadata.of(
        inputs.tokenizer,
        split=images.split,
        found=images.found,
        asked=asked,
        provenance=inputs.provenance,
    )
    return Job(config, ranks, device, inputs, settings, about)


def settings_of(
    tokenizer: Tokenizer, temperatures: Sequence[float] | Literal["auto"] | None, seed: int
) -> dict[str, Any]:
    """What changes the number, but for the images.

    Args:
        tokenizer: described by its spec.
        temperatures: None for its default.
        seed: of the groups.

    Raises:
        EntropyCliError: a temperature is to be fitted to what has no distances.
    """
    spec = tokenizer.spec
    chosen = temperatures or spec.temperature
    if chosen == "auto" and not tokenizer.codebook(0).has_distances:
        raise EntropyCliError(
            "temperature auto: is defined for squared distances to codes, not for the rule "
            f"{spec.rule}. Give a number."
        )
    values = [chosen] if isinstance(chosen, float) else chosen if chosen == "auto" else list(chosen)
    return {
        "family": spec.family,
        "patch_nums": spec.patch_nums,
        "image_size": spec.image_size,
        "rule": spec.rule,
        "preprocess": spec.preprocess,
        "temperature": values,
        "seed": seed,
        "groups": GROUPS,
    }


def _check_alike(settings: dict[str, Any], ranks: Ranks) -> None:
    fingerprints = ranks.all_gather(settings_fingerprint(settings))
    if len(set(fingerprints)) > 1:
        others = [i for i, fingerprint in enumerate(fingerprints) if fingerprint != fingerprints[0]]
        raise EntropyCliError(
            f"processes {', '.join(map(str, others))} of this run see other images, another "
            "checkpoint or precision than process 0. Start all with the same files and options."
        )
