"""The quantities that are reported, and an estimate of one of them. Imports no torch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Generic, Literal, TypeVar

QUANTITIES = (
    "assignment_entropy",
    "marginal_entropy",
    "mutual_information",
    "unigram_entropy",
    "varentropy",
)

# A divisor of the squared distance, or "auto": one fitted to each scale.
TemperatureChoice = float | Literal["auto"]
# What models on a tokenizer's tokens are trained on: the nearest codes, or q or tokens drawn from it.
Labels = Literal["hard", "soft", "unknown"]
# The tokens that are counted, and subtracted before the next scale: the nearest codes, or drawn from q.
TokenPath = Literal["hard", "drawn"]
# What a jackknife group holds as a whole, so that intervals are about other images, or other folders.
Cluster = Literal["image", "folder"]

# How the class of each image was found: from wnids in the paths, from the data set's own labels, from
# folders named by numbers, from the sorted names of folders, from a file, given in Python; "none" is the
# null class for all.
LabelSource = Literal["wnid", "column", "numbers", "folders", "file", "given", "none"]

# Outside of these, logits divided by a temperature leave the range of float32.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 1e-30, 1e30
MOST_TEMPERATURES = 100  # of one run

# A run may stop early only above these: with fewer images the standard error itself is too uncertain.
MIN_IMAGES = 1000
MIN_IMAGES_PER_GROUP = 10

UNDERSAMPLED = "undersampled: a lower bound"
BETWEEN = "between plug-in and held-out: a lower bound"
AT_MOST = "an upper bound"
TOO_MANY = "more codes than can be counted"
ONE_GROUP = "no error: the images fall into fewer than two groups"
TOO_LARGE = "too large for a number"
MOST_EXPONENT = 700.0  # whose exponential, times a standard error, float64 holds


Bound = Literal["", "lower", "upper"]
SIGNS: dict[Bound, str] = {"": "", "lower": "≥ ", "upper": "≤ "}


@dataclass(frozen=True)
class Estimate:
    """One estimated quantity, in nats per token unless its name says otherwise.

    Attributes:
        value: the bias-corrected estimate, or `plug_in` where no correction is valid; None where there
            is none, with the reason in `note`.
        plug_in: the quantity computed from the accumulated sums without correction.
        se: standard error by the delete-a-group jackknife; None with fewer than two groups.
        ci95: 95 % interval, value -+ t se, cut at 0 and ln V; None where `value` is only a bound or se
            is None.
        estimator: the name of the estimator of `value`.
        note: why an attribute is None.
    """

    value: float | None
    plug_in: float | None
    se: float | None
    ci95: tuple[float, float] | None
    estimator: str
    note: str | None = None

    @property
    def known(self) -> float:
        """The value of a quantity that always has one."""
        assert self.value is not None
        return self.value

    @property
    def bound(self) -> Bound:
        """The kind of bound, "lower" or "upper", if the value is only a bound; else ""."""
        note = self.note or ""
        return "lower" if "lower bound" in note else "upper" if AT_MOST in note else ""

    @property
    def sign(self) -> str:
        """The sign to print before the value: ≥ or ≤ for a bound, else nothing."""
        return SIGNS[self.bound]

    @property
    def half_width(self) -> float | None:
        """The half-width of the 95 % interval, before it was cut at 0 or ln V; None without one."""
        if self.ci95 is None or self.value is None:
            return None
        return max(self.ci95[1] - self.value, self.value - self.ci95[0])


@dataclass(frozen=True)
class Bracket:
    """Two ends that the unigram entropy lies between, in expectation; nats per token.

    Attributes:
        plug_in: the entropy of the counts: too low.
        held_out: the mean code length by the frequencies of codes in other images: too high.
        se: its standard error.
        upper95: the one-sided 95 % limit: the unigram entropy is at most this.
    """

    plug_in: float
    held_out: float
    se: float
    upper95: float


@dataclass(frozen=True)
class HistoryPoint:
    """The token-weighted assignment entropy after a number of images, in nats.

    Attributes:
        images: the number of images.
        value: the estimate.
        half_width: the half-width of its 95 % interval; None with fewer than two groups of images.
        widest: the largest half-width of the three averages, each the wider of the jackknife's and that
            from the variation over images; compared with the target of early stopping.
    """

    images: int
    value: float
    half_width: float | None
    widest: float | None


Part = TypeVar("Part")


@dataclass(frozen=True)
class Averages(Generic[Part]):
    """The three averages over scales, of estimates, bounds or losses."""

    token_weighted: Part
    over_scales: Part
    last_scale: Part

    def items(self) -> Iterator[tuple[str, Part]]:
        """Iterate over the averages with their names."""
        return ((name, getattr(self, name)) for name in AVERAGES)


AVERAGES = tuple(field.name for field in fields(Averages))


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The generator that was evaluated; what a model given as a function does not tell is None."""

    family: str
    checkpoint_sha256: str | None
    parameters: int | None
    width: int | None
    depth: int | None
    heads: int | None
    classes: int | None  # without the null class
    precision: str


def perplexity(entropy: Estimate) -> Estimate:
    """Return exp(entropy), the number of equally likely codes with that entropy.

    The ends of the entropy's interval are exponentiated too, so the interval is not symmetric; the
    standard error is that of the linear approximation. What is too large for a number has no value.
    """
    if entropy.value is None or entropy.plug_in is None:
        return entropy
    if max(entropy.value, entropy.plug_in, *(entropy.ci95 or ())) > MOST_EXPONENT:
        return Estimate(None, None, None, None, f"exp of {entropy.estimator}", TOO_LARGE)
    value = math.exp(entropy.value)
    return Estimate(
        value=value,
        plug_in=math.exp(entropy.plug_in),
        se=None if entropy.se is None else value * entropy.se,
        ci95=None if entropy.ci95 is None else (math.exp(entropy.ci95[0]), math.exp(entropy.ci95[1])),
        estimator=f"exp of {entropy.estimator}",
        note=entropy.note,
    )
