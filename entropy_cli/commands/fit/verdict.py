"""Judge a scaling fit: ok, weak, or refused.

Refused before fitting: too few distinct sizes, or too narrow a range of them. Refused after fitting: the
90 % interval of E is wider than `TOO_WIDE` nats or than half of the smallest loss. Weak: wider than
`WIDE` nats, E below half of the smallest loss, or an exponent at a bound of the search. With a given E
fewer points and a narrower range are enough, and the exponents are judged.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from entropy_cli.commands.fit.intervals import likelihood, profile_statistic
from entropy_cli.commands.fit.scaling_law import EXPONENTS, PARAMETERS, Data, Fit
from entropy_cli.entropy.jackknife import t_quantile

Verdict = Literal["ok", "weak", "refused"]
MIN_SIZES, MIN_RANGE = 4, 10.0
MIN_SIZES_GIVEN, MIN_RANGE_GIVEN = 3, 3.0  # with a given E
# Widths of the 90 % interval of E: in nats, and relative to the smallest loss.
WIDE, TOO_WIDE, TOO_WIDE_SHARE = 0.3, 1.0, 0.5
LOW_SHARE = 0.5  # of the smallest loss: an E below it is far from any measured loss
WIDE_EXPONENT = 1.0  # width of an exponent's 90 % interval relative to the exponent
COLLINEAR = 0.999  # correlation of the logarithms of model and data size


@dataclass(frozen=True)
class Judgement:
    """A verdict and its reason, a sentence without a full stop.

    Attributes:
        bounded: whether an interval of E is meaningful although there is no estimate.
    """

    verdict: Verdict
    reason: str
    bounded: bool = True


def judge_points(data: Data, *, E_is_fixed: bool) -> Judgement | None:
    """Refuse points that are unfit for a scaling law; None if they are fit.

    Args:
        data: the points.
        E_is_fixed: whether E is given.
    """
    names = ("model sizes", "data sizes")
    least_range = MIN_RANGE_GIVEN if E_is_fixed else MIN_RANGE
    form, points = data.form, np.unique(np.round(data.log_size_TP, 9), axis=1).shape[1]
    least = MIN_SIZES_GIVEN if E_is_fixed else MIN_SIZES
    if form == "chinchilla":
        least = len(PARAMETERS[form]) + (0 if E_is_fixed else 1)
    if points < least:
        kind = "distinct sizes" if form == "power" else "distinct pairs of model and data size"
        free = len(PARAMETERS[form]) - E_is_fixed
        return Judgement(
            "refused", f"{kind}: {points}, at least {least} are needed for {free} parameters"
        )
    for log_size_P, name in zip(data.log_size_TP, names, strict=False):
        spanned = math.exp(float(np.ptp(log_size_P)))
        if spanned < least_range * (1 - 1e-9):
            decade = "" if E_is_fixed else " (a decade)"
            return Judgement(
                "refused",
                f"the {name} span a factor of {spanned:.3g}, {math.log10(spanned):.2f} decades; at "
                f"least {least_range:g}{decade} is needed",
            )
    if form == "chinchilla" and abs(float(np.asarray(np.corrcoef(data.log_size_TP))[0, 1])) > COLLINEAR:
        return Judgement(
            "refused", "model and data size grow together, so their terms can't be separated"
        )
    if form == "power" and float(data.log_size_TP[0] @ (data.log_loss_P - data.log_loss_P.mean())) >= 0:
        return Judgement("refused", "the loss does not fall with the size", bounded=False)
    return None


def judge_fit(
    fit: Fit, estimates: Mapping[str, float], interval90: Mapping[str, tuple[float | None, float | None]]
) -> Judgement:
    """Judge a fit by its 90 % intervals of E, or of the exponents if E is given; nats per token."""
    if fit.log_floor is not None:
        return _judge_exponents(fit, estimates, interval90)
    low, high = interval90["E"]
    assert low is not None and high is not None
    width, least_loss, floor = high - low, fit.data.least_loss, estimates["E"]
    width_text = f"the 90 % interval of E is {width:.2g} nats wide ({low:.4g} to {high:.4g})"
    if width > TOO_WIDE:
        return Judgement(
            "refused", f"{width_text}, more than {TOO_WIDE:g}: too wide for a point estimate"
        )
    if width > TOO_WIDE_SHARE * least_loss:
        return Judgement(
            "refused", f"{width_text}, more than half of the smallest loss, {least_loss:.4g}"
        )
    reasons = []
    if width > WIDE:
        reasons.append(f"{width_text}, more than {WIDE:g}")
    if floor < LOW_SHARE * least_loss:
        reasons.append(f"E = {floor:.4g} is less than half of the smallest loss, {least_loss:.4g}")
    if fit.at_bound is not None:
        reasons.append(_bounded(fit.at_bound))
    if reasons:
        return Judgement("weak", "; ".join(reasons))
    return Judgement("ok", f"the 90 % interval of E is {width:.2g} nats wide, at most {WIDE:g}")


def _judge_exponents(
    fit: Fit, estimates: Mapping[str, float], interval90: Mapping[str, tuple[float | None, float | None]]
) -> Judgement:
    reasons = [] if fit.at_bound is None else [_bounded(fit.at_bound)]
    for name in ("alpha", "beta"):
        if name in interval90:
            low, high = interval90[name]
            assert low is not None and high is not None
            if high - low > WIDE_EXPONENT * estimates[name]:
                reasons.append(f"the 90 % interval of {name}, {low:.3g} to {high:.3g}, is wider than it")
    if reasons:
        return Judgement("weak", "; ".join(reasons))
    return Judgement(
        "ok", "E is given; the 90 % intervals of the exponents are narrower than their values"
    )


def _bounded(name: str) -> str:
    low, high = EXPONENTS
    return f"{name} is at a bound of the search, {low:g} to {high:g}"


def contradicts_fixed_E(free: Fit, fixed_E: float) -> str | None:
    """Return why the points contradict a given E, if a fit with E free is much better; else None.

    Args:
        free: the fit with E free.
        fixed_E: the given E, in nats per token.
    """
    fit_likelihood = likelihood(free)
    if fit_likelihood is None:
        return None
    critical = t_quantile(fit_likelihood.degrees, 0.99) ** 2
    if profile_statistic(free, fit_likelihood, "E", fixed_E) <= critical:
        return None
    return f"the points contradict it: with E free the best fit is {math.exp(free.theta[0]):.4g}"
