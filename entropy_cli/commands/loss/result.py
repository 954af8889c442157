"""A model's loss and what it is made of, as JSON. Imports no torch."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from entropy_cli.results.findings import Finding

SCHEMA = "entropy-cli/loss"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Losses:
    """Means over some tokens, in nats per token; None without tokens, or where it was not asked for.

    Attributes:
        tokens: that count.
        ignored: those whose label is the one to ignore.
        cross_entropy: with the soft labels if they are given, else with the labels.
        cross_entropy_bits: the same, in bits per token.
        standard_error: of the cross-entropy, over rows; None with fewer than two.
        ci95: its 95 % interval, by Student's t.
        accuracy_top1: share of the tokens whose label is the likeliest code.
        accuracy_top5: likewise, one of the five likeliest.
        predictive_entropy: of the model's own predictions.
        perplexity: exp of the cross-entropy; None if it is too large for a number.
        target_entropy: of the soft labels.
        kl: from the soft labels to the predictions: cross-entropy minus target entropy.
        label_cross_entropy: with the hard labels.
        smoothed_cross_entropy: with the hard labels, smoothed.
        smoothed_floor: entropy of a smoothed label, below which that can't fall.
        smoothed_excess: how far above it is.
        floor: what the cross-entropy is compared with.
        reducible: cross-entropy minus floor.
        reducible_half_width: of its 95 % interval, the errors of both taken as independent.
        unigram_entropy: the loss of knowing only how frequent each code is; None where only a lower
            bound of it is known.
    """

    tokens: int
    ignored: int
    cross_entropy: float | None
    cross_entropy_bits: float | None
    standard_error: float | None
    ci95: tuple[float, float] | None
    accuracy_top1: float | None
    accuracy_top5: float | None
    predictive_entropy: float | None
    perplexity: float | None
    target_entropy: float | None
    kl: float | None
    label_cross_entropy: float | None
    smoothed_cross_entropy: float | None
    smoothed_floor: float | None
    smoothed_excess: float | None
    floor: float | None
    reducible: float | None
    reducible_half_width: float | None
    unigram_entropy: float | None

    @property
    def half_width(self) -> float | None:
        """Of the cross-entropy's 95 % interval."""
        return None if self.ci95 is None else (self.ci95[1] - self.ci95[0]) / 2


@dataclass(frozen=True)
class ScaleLosses:
    """Of one scale, whose grid has `patch_num` tokens on a side."""

    scale: int
    patch_num: int
    losses: Losses

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.patch_num}x{self.patch_num}"


@dataclass(frozen=True)
class LossResult:
    """A model's losses on some tokens.

    Attributes:
        row: what the standard errors are over: "sequence", "image" or "token".
        rows: how many of them count.
        all: of all tokens.
        scales: of the tokens of each scale; empty without patch_nums.
        floor_source: where the floors are from.
        settings: files and options.
        provenance: command and versions.
    """

    vocab_size: int
    row: str
    rows: int
    all: Losses
    scales: list[ScaleLosses]
    floor_source: str | None
    findings: list[Finding]
    settings: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def has_targets(self) -> bool:
        """Whether the cross-entropy is that with soft labels."""
        return self.settings["targets"] is not None

    def named(self) -> Iterator[tuple[str, Losses]]:
        """Of each scale, then of all tokens."""
        for scale in self.scales:
            yield scale.name, scale.losses
        yield "all tokens", self.all

    def to_json(self) -> str:
        """As JSON text."""
        content = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "units": "nats per token",
            "cross_entropy_with": "targets" if self.has_targets else "labels",
            "vocab_size": self.vocab_size,
            "standard_error_over": f"{self.row}s",
            "rows": self.rows,
            **asdict(self.all),
            "scales": [
                {"scale": scale.scale, "patch_num": scale.patch_num, **asdict(scale.losses)}
                for scale in self.scales
            ],
            "floor_source": self.floor_source,
            "findings": [asdict(finding) for finding in self.findings],
            "settings": self.settings,
            "provenance": self.provenance,
        }
        return json.dumps(content, allow_nan=False, indent=1)
