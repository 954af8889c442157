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
    """Means over a group of tokens, in nats per token; None without tokens, or if not computed."""

    tokens: int  # counted ones
    ignored: int
    cross_entropy: float | None  # with the soft labels if given, else with the labels
    cross_entropy_bits: float | None  # per token
    standard_error: float | None  # of the cross-entropy, over rows; None with fewer than two
    ci95: tuple[float, float] | None  # its 95 % interval, by Student's t
    accuracy_top1: float | None  # share of the tokens whose label is the most likely code
    accuracy_top5: float | None  # likewise, among the five most likely
    predictive_entropy: float | None  # of the model's own predictions
    perplexity: float | None  # exp of the cross-entropy; None if it overflows
    target_entropy: float | None  # of the soft labels
    kl: float | None  # of the predictions from the soft labels: cross-entropy minus target entropy
    label_cross_entropy: float | None  # with the hard labels
    smoothed_cross_entropy: float | None  # with smoothed hard labels
    smoothed_floor: float | None  # entropy of a smoothed label, the minimum of the smoothed loss
    smoothed_excess: float | None  # smoothed cross-entropy minus its floor
    floor: float | None  # assignment entropy, or the number that the user gave
    reducible: float | None  # cross-entropy minus floor; negative values are possible with hard labels
    reducible_half_width: float | None  # of its 95 % interval, the errors of both independent
    unigram_entropy: float | None  # loss of predicting the code frequencies, if known

    @property
    def half_width(self) -> float | None:
        """Half the width of the cross-entropy's 95 % interval."""
        return None if self.ci95 is None else (self.ci95[1] - self.ci95[0]) / 2


@dataclass(frozen=True)
class LossResult:
    """A model's losses on some tokens."""

    vocab_size: int
    row: str  # unit of the standard errors: "sequence", "image" or "token"
    rows: int  # counted ones
    all: Losses
    scales: list[tuple[int, Losses]]  # side of each scale's grid; empty without patch_nums
    floor_source: str | None
    findings: list[Finding]
    settings: dict[str, Any]  # files and options
    provenance: dict[str, Any]  # command and versions

    @property
    def has_targets(self) -> bool:
        """True if the cross-entropy is with soft labels."""
        return self.settings["targets"] is not None

    def named(self) -> Iterator[tuple[str, Losses]]:
        """Yield name and losses of each scale, then of all tokens."""
        for side, losses in self.scales:
            yield f"{side}x{side}", losses
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
                {"scale": scale, "patch_num": side, **asdict(losses)}
                for scale, (side, losses) in enumerate(self.scales)
            ],
            "floor_source": self.floor_source,
            "findings": [asdict(finding) for finding in self.findings],
            "settings": self.settings,
            "provenance": self.provenance,
        }
        return json.dumps(content, allow_nan=False, indent=1)
