"""A request with everything opened, listed and checked."""

import logging
from dataclasses import dataclass
from typing import Any

import torch

from entropy_cli.data.images import GROUPS, ImageSet, find_images
from entropy_cli.data.plan import BLOCK, number_of_blocks, shard_blocks
from entropy_cli.engine.progress import Progress
from entropy_cli.engine.ranks import Ranks
from entropy_cli.engine.runtime import check_precision, choose_device, choose_precision
from entropy_cli.errors import EntropyCliError
from entropy_cli.pipeline.request import Bars, Request
from entropy_cli.results.about import About
from entropy_cli.results.state import Saved, settings_fingerprint
from entropy_cli.tokenizers import Loaded, load_tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What is to be done, on what, with what; `settings` is what changes the number."""

    request: Request
    ranks: Ranks
    device: torch.device
    loaded: Loaded
    images: ImageSet
    settings: dict[str, Any]
    about: About

    @property
    def blocks(self) -> range:
        """The blocks of this run, done or not."""
        return shard_blocks(number_of_blocks(len(self.images.files)), self.request.shard)

    def saved(self, progress: Progress) -> Saved:
        """The state of the run, when it has come so far."""
        return Saved(progress, self.settings, self.about, self.request.shard)


def prepare(request: Request, bars: Bars, ranks: Ranks) -> Job:
    """Open the checkpoint, list the images, and settle everything that changes the number.

    Raises:
        EntropyCliError: any of it can't be done, or the processes of the run see different things.
    """
    device = choose_device(request.device, ranks.local_rank if ranks.world > 1 else None)
    precision = request.precision or choose_precision(device)
    check_precision(precision, device)
    if precision == "fp16" and device.type == "cpu" and ranks.first:
        logger.warning("--precision fp16 is far slower than fp32 on a CPU; bf16 is the fast one there")
    loaded = load_tokenizer(request.checkpoint, request.family, request.tokenizer)
    spec = loaded.tokenizer.spec
    if ranks.first:
        for note in spec.notes:
            logger.warning("%s: %s", request.checkpoint, note)
    with bars("listing images", None, "img") as bar:
        images = find_images(
            request.data, request.split, seed=request.seed, limit=request.limit, progress=bar.update
        )
    checkpoint = loaded.checkpoint
    with bars("hashing checkpoint", checkpoint.size, "B") as bar:
        sha256 = checkpoint.sha256(bar.update)
    temperature = request.temperatures or spec.temperature
    if isinstance(temperature, float):
        temperature = (temperature,)
    settings = {
        "checkpoint_sha256": sha256,
        "checkpoint_weights": checkpoint.weights,
        "images_fingerprint": images.fingerprint(),
        "images": len(images.files),
        "family": spec.family,
        "patch_nums": spec.patch_nums,
        "image_size": spec.image_size,
        "rule": spec.rule,
        "preprocess": spec.preprocess,
        "temperature": "auto" if temperature == "auto" else list(temperature),
        "precision": precision,
        "seed": images.seed,
        "groups": GROUPS,
        "block": BLOCK,
    }
    _check_alike(settings, ranks)
    provenance = {
        "data": images.source.location,
        "checkpoint": str(request.checkpoint.resolve()),
        "checkpoint_wrapper": checkpoint.wrapper,
        "checkpoint_prefix": checkpoint.prefix,
        "checkpoint_weights": checkpoint.weights,
        "checkpoint_classes": list(checkpoint.classes),
        "checkpoint_notes": list(spec.notes),
    }
    asked = request.temperatures is not None
    about = About.of(loaded.tokenizer, images, asked=asked, provenance=provenance)
    return Job(request, ranks, device, loaded, images, settings, about)


def _check_alike(settings: dict[str, Any], ranks: Ranks) -> None:
    fingerprints = ranks.gather(settings_fingerprint(settings))
    if len(set(fingerprints)) > 1:
        others = [i for i, fingerprint in enumerate(fingerprints) if fingerprint != fingerprints[0]]
        raise EntropyCliError(
            f"processes {', '.join(map(str, others))} of this run see other images, another "
            "checkpoint or precision than process 0. Start all with the same files and options."
        )
