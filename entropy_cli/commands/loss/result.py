"""The result of `loss` as JSON. Imports no torch."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from entropy_cli.results.findings import Finding

SCHEMA = "entropy-cli/loss"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Losses:
    """Means over a group of tokens, in nats per token; None without tokens, or if not computed.

    Attributes:
        tokens: number of counted tokens.
        ignored: number of ignored tokens.
        cross_entropy: with the soft labels if given, else with the labels.
        cross_entropy_bits: the same, in bits per token.
        standard_error: of the cross-entropy, over rows; None with fewer than two.
        ci95: its 95 % interval, by Student's t.
        accuracy_top1: share of the tokens whose label is the most likely code.
        accuracy_top5: likewise, among the five most likely.
        predictive_entropy: of the model's own predictions.
        perplexity: exp of the cross-entropy; None if it overflows.
        target_entropy: of the soft labels.
        kl: KL divergence of the predictions from the soft labels: cross-entropy minus target entropy.
        label_cross_entropy: with the hard labels.
        smoothed_cross_entropy: with smoothed hard labels.
        smoothed_floor: entropy of a smoothed label, the minimum of smoothed_cross_entropy.
        smoothed_excess: smoothed_cross_entropy minus smoothed_floor.
        floor: of the cross-entropy.
        reducible: cross-entropy minus floor.
        reducible_half_width: of its 95 % interval, the errors of both taken as independent.
        unigram_entropy: loss of predicting the code frequencies; None if only a lower bound is known.
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
        """Half the width of the cross-entropy's 95 % interval."""
        return None if self.ci95 is None else (self.ci95[1] - self.ci95[0]) / 2


@dataclass(frozen=True)
class ScaleLosses:
    """Losses of one scale, whose grid has `patch_num` tokens per side."""

    scale: int
    patch_num: int
    losses: Losses

    @property
    def name(self) -> str:
        """The shape of the grid, such as 4x4."""
        return f"{self.patch_num}x{self.patch_num}"


@dataclass(frozen=True)
class LossResult:
    """A model's losses on some tokens.

    Attributes:
        vocab_size: number of codes.
        row: unit of the standard errors: "sequence", "image" or "token".
        rows: number of counted rows.
        all: of all tokens.
        scales: of the tokens of each scale; empty without patch_nums.
        floor_source: source of the floors; None without floors.
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
        """True if the cross-entropy is with soft labels."""
        return self.settings["targets"] is not None

    def named(self) -> Iterator[tuple[str, Losses]]:
        """Yield name and losses of each scale, then of all tokens."""
        for scale in self.scales:
            yield scale.name, scale.losses
        yield "all tokens", self.all

    def to_json(self) -> str:
        """Return the result as JSON text."""
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
