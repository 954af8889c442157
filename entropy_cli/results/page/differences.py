"""The difference of one number of two results, with its error: paired where the images are the same."""

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from entropy_cli.core.table import Cell
from entropy_cli.entropy.jackknife import jackknife_variance, t_quantile
from entropy_cli.results.evaluation import Evaluation, estimate_in
from entropy_cli.results.schema import Result

Kind = TypeVar("Kind", bound=Result | Evaluation)


@dataclass(frozen=True)
class Difference:
    """A token-weighted number of a result minus another's, in nats per token.

    Attributes:
        value: the difference.
        se: its standard error; None if either result has none.
        ci95: its 95 % interval; None without a standard error.
        paired: whether both results are from the same images, whose common variation then cancels.
        not_comparable: why the difference is meaningless, or "".
    """

    value: float
    se: float | None
    ci95: tuple[float, float] | None
    paired: bool
    not_comparable: str

    @property
    def interval(self) -> str:
        """The interval as text."""
        return "none" if self.ci95 is None else f"{self.ci95[0]:+.4f} to {self.ci95[1]:+.4f}"

    @property
    def text(self) -> str:
        """The difference with its standard error as text."""
        return f"{self.value:+.4f}" + ("" if self.se is None else f" ± {self.se:.4f}")

    @property
    def kind(self) -> str:
        """Whether it is paired, in words."""
        return "paired: the same images" if self.paired else "unpaired"

    def row(self) -> list[Cell]:
        """Return its parts in the order of an estimate's in CSV."""
        low, high = self.ci95 or (None, None)
        estimator = "paired jackknife" if self.paired else "unpaired"
        note = f"not comparable: {self.not_comparable}" if self.not_comparable else None
        return [self.value, None, self.se, low, high, estimator, note, None]


def subtract(reference: Kind, other: Kind, name: str, not_comparable: str) -> Difference:
    """Compute a number of `other` minus that of `reference`, by its name in both.

    They are paired by jackknife replicates if both have the same images.
    """
    before, after = (getattr(one.average.token_weighted, name) for one in (reference, other))
    value, se = after.known - before.known, None
    first, second = estimate_in(reference), estimate_in(other)
    paired = _images(first) == _images(second) and bool(first.replicates.get(name))
    groups = min(sum(n > 0 for n in one.replicates["images"]) for one in (first, second))
    if paired and groups > 1:
        images_G, cluster = np.array(first.replicates["images"]), first.settings.cluster
        deleted_G = _deleted(second, name) - _deleted(first, name)
        se = math.sqrt(jackknife_variance(np.asarray(value), deleted_G, images_G, cluster))
    elif not paired and before.se is not None and after.se is not None:
        se = math.hypot(before.se, after.se)
    half = None if se is None else t_quantile(groups - 1) * se
    ci95 = None if half is None else (value - half, value + half)
    return Difference(value, se, ci95, paired, not_comparable)


def _deleted(result: Result, name: str) -> np.ndarray:
    """Return the token-weighted mean without each group, NaN for empty groups, (G,)."""
    tokens_S = np.array([scale.tokens for scale in result.scales], np.float64)
    deleted_GS = np.array(result.replicates[name], np.float64)
    return deleted_GS @ (tokens_S / tokens_S.sum())


def _images(result: Result) -> tuple[Any, ...]:
    """Return what is equal where the jackknife groups of two results hold the same images."""
    data, groups = result.data, result.replicates["images"]
    failed, settings = sorted(data.failed), (result.settings.seed, result.settings.cluster)
    return data.images_fingerprint, data.images_used, failed, settings, groups
