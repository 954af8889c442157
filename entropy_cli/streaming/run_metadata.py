"""What a result says of a run beside its numbers; kept in the state, for merging."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.entropy.quantity import Labels
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.tokenizers.base import Scale, Tokenizer


@dataclass(frozen=True)
class RunMetadata:
    """A run's tokenizer and images.

    Attributes:
        degrees_of_freedom: of each scale's codebook; None where no temperature can be fitted.
        temperature_asked: whether the user gave the temperature.
        temperature_default: where the family's default is from.
        split: of the images.
        images_found: number of images before any limit.
        provenance: where checkpoint and images are, and notes on them.
        labels: what models on its tokens are trained on.
        shared_codebook: whether all scales have the same codes.
    """

    latent_dim: int
    scales: list[Scale]
    degrees_of_freedom: list[int | None]
    temperature_asked: bool
    temperature_default: str
    split: str
    images_found: int
    provenance: dict[str, Any]
    labels: Labels = "unknown"
    shared_codebook: bool = False

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        *,
        split: str,
        images_found: int,
        temperature_given: bool,
        provenance: dict[str, Any],
    ) -> "RunMetadata":
        """Describe a run that is about to start."""
        spec = tokenizer.spec
        codebooks = [tokenizer.codebook(s) for s in range(len(spec.scales))]
        return cls(
            latent_dim=spec.latent_dim,
            scales=list(spec.scales),
            degrees_of_freedom=[
                codebook.degrees_of_freedom if codebook.has_distances else None for codebook in codebooks
            ],
            temperature_asked=temperature_given,
            temperature_default=spec.temperature_source,
            split=split,
            images_found=images_found,
            provenance=provenance,
            labels=spec.labels,
            shared_codebook=_are_equal(codebooks),
        )

    @property
    def vocabularies(self) -> list[Vocabulary]:
        """Return the vocabulary of each scale."""
        return [scale.vocabulary for scale in self.scales]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "RunMetadata":
        """Rebuild the metadata from what `to_json` gave."""
        checked = {
            "scales": [_scale(**scale) for scale in content["scales"]],
            "provenance": dict(content["provenance"]),
            "latent_dim": int(content["latent_dim"]),
            "images_found": int(content["images_found"]),
        }
        return cls(**{**content, **checked})


def _are_equal(codebooks: Sequence[Codebook | Grid]) -> bool:
    first, *others = codebooks
    return all(
        other is first
        or (
            isinstance(other, Codebook)
            and isinstance(first, Codebook)
            and torch.equal(other.codes_VC, first.codes_VC)
        )
        for other in others
    )


def _scale(vocabulary: dict[str, Any], **others: Any) -> Scale:  # noqa: ANN401 - JSON
    levels = vocabulary["levels"]
    size = Vocabulary(vocabulary["size"], None if levels is None else tuple(levels))
    return Scale(vocabulary=size, **others)
