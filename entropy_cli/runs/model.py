"""Open the generator that a run evaluates, and the classes of the run's images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from entropy_cli.core.progress_bars import Bars
from entropy_cli.core.remote.address import provenance_of
from entropy_cli.entropy.quantity import ModelInfo
from entropy_cli.generators.base import Generator, GeneratorSpec
from entropy_cli.generators.fits import check_fits
from entropy_cli.generators.registry import Found, find_generator
from entropy_cli.generators.settings import GeneratorSettings
from entropy_cli.images.image_set import ImageSet
from entropy_cli.images.labels import ClassLabels, find_labels
from entropy_cli.runs.config import EstimateConfig, ModelChoice
from entropy_cli.streaming.run_settings import MODEL, SOFT_LABELS
from entropy_cli.streaming.scorer import Scorer
from entropy_cli.streaming.state import ModelMetadata
from entropy_cli.tokenizers.base import Tokenizer, TokenizerSpec
from entropy_cli.tokenizers.precision import Precision

LABEL_CHECK = {"cpu": 64, "cuda": 512}  # images, by default


class Named(Protocol):
    """Images that have names."""

    def __len__(self) -> int:
        """Return the number of images."""

    def name(self, index: int) -> str:
        """Return the relative path of an image."""


@dataclass(frozen=True)
class Model:
    """A generator to evaluate.

    Attributes:
        generator: in float32 on the CPU.
        labels: the classes of the images, in the seeded order.
        precision: of its products.
        label_check: the number of first images that are also given the null class.
        sha256: of its file.
        provenance: where it is, and notes on it.
    """

    generator: Generator
    labels: ClassLabels
    precision: Precision
    label_check: int
    sha256: str | None
    provenance: dict[str, Any]

    @property
    def metadata(self) -> ModelMetadata:
        """The description of the generator in a result."""
        spec = self.generator.spec
        info = ModelInfo(
            family=spec.family,
            checkpoint_sha256=self.sha256,
            parameters=spec.parameters or None,  # which a function does not tell
            width=spec.width or None,
            depth=spec.depth or None,
            heads=spec.heads or None,
            classes=spec.classes,
            precision=self.precision,
        )
        labels = self.labels
        return ModelMetadata(info, labels.source, labels.classes_seen, list(labels.notes))

    def identity(self, *, soft: bool) -> dict[str, Any]:
        """Return what of it changes the losses; `soft` is whether there are any of soft labels."""
        return {
            MODEL: self.generator.spec.family,
            SOFT_LABELS: soft,
            "model_sha256": self.sha256,
            "model_weights": self.provenance.get("model_weights"),
            "model_heads": self.generator.spec.heads,
            "model_precision": self.precision,
            "labels_sha256": self.labels.digest,
            "label_check": self.label_check,
        }

    @torch.inference_mode()
    def scorer(
        self, tokenizer: Tokenizer, device: torch.device, precision: Precision, *, soft: bool
    ) -> Scorer:
        """Return what computes its losses on a device; a precision other than its own is for a check."""
        label_N = torch.from_numpy(self.labels.index_N)
        generator = self.generator.to(device, precision)
        return Scorer(generator, tokenizer, label_N, self.label_check, soft)


def has_soft_labels(tokenizer: Tokenizer) -> bool:
    """Return whether soft assignments can be compared with a prediction: there are few enough codes."""
    return all(scale.vocabulary.counted for scale in tokenizer.spec.scales)


def find_model(config: EstimateConfig) -> Found | None:
    """Open the generator of a config, without reading its weights; None without one.

    Raises:
        CheckpointError: it is no generator, or can't be used.
    """
    choice = config.model
    if choice is None:
        return None
    settings = GeneratorSettings(
        config.tokenizer.image_size, config.tokenizer.patch_nums, choice.heads, choice.weights
    )
    return find_generator(choice.checkpoint, settings)


def open_model(
    found: Found,
    config: EstimateConfig,
    tokenizer: TokenizerSpec,
    images: Named,
    device: torch.device,
    choose: Callable[[Precision], Precision],
    bars: Bars,
) -> Model:
    """Read a generator, and find the classes of the images.

    Args:
        found: the generator, opened.
        config: of the run.
        tokenizer: of the tokens that it predicts.
        images: in the seeded order.
        device: of the run.
        choose: returns the precision to use, given that in which the generator was trained.
        bars: makes progress bars.

    Raises:
        EntropyCliError: it does not fit the tokenizer, can't be read, or images have no classes.
    """
    choice = config.model
    assert choice is not None
    # Where the file shows no scales, they are the tokenizer's.
    sides = tuple(n for n in tokenizer.patch_nums if n is not None)
    found = replace(found, settings=replace(found.settings, patch_nums=sides))
    spec = found.describe()
    found.check_complete(spec)
    check_fits(spec, tokenizer)
    labels = _labels(choice, spec, images, bars)
    generator = found.build()
    found.checkpoint.close()
    with bars("hashing the model", found.checkpoint.size, "B") as bar:
        sha256 = found.checkpoint.sha256(bar.update)
    most = LABEL_CHECK[device.type] if choice.label_check is None else choice.label_check
    checks = spec.null_class is not None and labels.source != "none"
    return Model(
        generator,
        labels,
        choose(spec.trained_in),
        min(most, len(images)) if checks else 0,
        sha256,
        {
            **provenance_of("model", found.checkpoint.path),
            "model_weights": found.checkpoint.weights,
            "model_notes": list(spec.notes),
        },
    )


def _labels(choice: ModelChoice, spec: GeneratorSpec, images: Named, bars: Bars) -> ClassLabels:
    with bars("finding the classes", len(images), "img") as bar:

        def names() -> Iterator[str]:
            for index in range(len(images)):
                yield images.name(index)
                bar.update(1)

        known = (images.label_of, images.folders_left_out) if isinstance(images, ImageSet) else ()
        return find_labels(names(), choice.labels, spec.classes, spec.null_class, *known)
