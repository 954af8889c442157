"""Judge a scaling fit: ok, weak, or refused.

Refused before fitting: too few distinct sizes, or too narrow a range of them. Refused after fitting: the
90 % interval of E is wider than `TOO_WIDE` nats or than half of the smallest loss. Weak: wider than
`WIDE` nats or up to the smallest loss, E below half of it, an exponent at a bound of the search, or E
moves when one end is left out (see `stability`). With a given E fewer points and a narrower range are
enough, and the exponents are judged.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from entropy_cli.commands.fit.intervals import Interval, likelihood, profile_statistic
from entropy_cli.commands.fit.scaling_law import EXPONENTS, PARAMETERS, Data, Fit
from entropy_cli.entropy.jackknife import t_quantile

Verdict = Literal["ok", "weak", "refused"]
MIN_SIZES, MIN_RANGE = 4, 10.0
MIN_SIZES_GIVEN, MIN_RANGE_GIVEN = 3, 3.0  # with a given E
# Widths of the 90 % interval of E: in nats, and relative to the smallest loss.
WIDE, TOO_WIDE, TOO_WIDE_SHARE = 0.3, 1.0, 0.5
LOW_SHARE = 0.5  # of the smallest loss: an E below it is far from any measured loss
WIDE_EXPONENT = 1.0  # width of an exponent's 90 % interval relative to the exponent
ROUNDING = 1e-9  # relative, of an end of an interval at the smallest loss
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
    form, free = data.form, len(PARAMETERS[data.form]) - E_is_fixed
    least, least_range = (MIN_SIZES_GIVEN, MIN_RANGE_GIVEN) if E_is_fixed else (MIN_SIZES, MIN_RANGE)
    kind = "distinct sizes"
    if form == "chinchilla":
        least, kind = free + 1, "distinct pairs of model and data size"
    distinct = np.unique(np.round(data.log_size_TP, 9), axis=1).shape[1]
    if distinct < least:
        return _refuse(f"{kind}: {distinct}, at least {least} are needed for {free} parameters")
    for name, log_size_P in zip(("model sizes", "data sizes"), data.log_size_TP, strict=False):
        spanned = math.exp(float(np.ptp(log_size_P)))
        if spanned < least_range * (1 - 1e-9):
            decade = "" if E_is_fixed else " (a decade)"
            return _refuse(
                f"the {name} span a factor of {spanned:.3g}, {math.log10(spanned):.2f} decades; at "
                f"least {least_range:g}{decade} is needed"
            )
    if form == "chinchilla" and abs(np.asarray(np.corrcoef(data.log_size_TP))[0, 1]) > COLLINEAR:
        return _refuse("model and data size grow together, so their terms can't be separated")
    if form == "power" and data.log_size_TP[0] @ (data.log_loss_P - data.log_loss_P.mean()) >= 0:
        return Judgement("refused", "the loss does not fall with the size", bounded=False)
    return None


def _refuse(reason: str) -> Judgement:
    return Judgement("refused", reason)


def judge_fit(fit: Fit, estimates: Mapping[str, float], interval90: Mapping[str, Interval]) -> Judgement:
    """Judge a fit by its 90 % intervals of E, or of the exponents if E is given; nats per token."""
    bound = f"{fit.at_bound} is at a bound of the search, {EXPONENTS[0]:g} to {EXPONENTS[1]:g}"
    reasons = [bound] if fit.at_bound is not None else []
    if fit.log_floor is not None:
        for name, (low, high) in interval90.items():
            assert low is not None and high is not None
            if high - low > WIDE_EXPONENT * estimates[name]:
                reasons.append(f"the 90 % interval of {name}, {low:.3g} to {high:.3g}, is wider than it")
        good = "E is given; the 90 % intervals of the exponents are narrower than their values"
        return Judgement("weak", "; ".join(reasons)) if reasons else Judgement("ok", good)
    low, high = interval90["E"]
    assert low is not None and high is not None
    width, least_loss, E = high - low, fit.data.least_loss, estimates["E"]
    wide = f"the 90 % interval of E is {width:.2g} nats wide"
    ends = f"{wide} ({low:.4g} to {high:.4g})"
    if width > TOO_WIDE:
        return _refuse(f"{ends}, more than {TOO_WIDE:g}: too wide for a point estimate")
    if width > TOO_WIDE_SHARE * least_loss:
        return _refuse(f"{ends}, more than half of the smallest loss, {least_loss:.4g}")
    if LOW_SHARE * least_loss > E:
        reasons.insert(0, f"E = {E:.4g} is less than half of the smallest loss, {least_loss:.4g}")
    if width > WIDE:
        reasons.insert(0, f"{ends}, more than {WIDE:g}")
    if high >= least_loss * (1 - ROUNDING):
        reasons.append(
            f"the 90 % interval of E, {low:.4g} to {high:.4g}, reaches the smallest loss: the loss "
            "hardly falls any more, and may fall again later"
        )
    if reasons:
        return Judgement("weak", "; ".join(reasons))
    return Judgement("ok", f"{wide}, at most {WIDE:g}")


def contradicts_fixed_E(free: Fit, fixed_E: float) -> str | None:
    """Return why the points contradict a given E, if a fit with E free is much better; else None.

    Args:
        free: the fit with E free.
        fixed_E: the given E, in nats per token.
    """
    working = likelihood(free)
    if working is None:
        return None
    if profile_statistic(free, working, "E", fixed_E) <= t_quantile(working.degrees, 0.99) ** 2:
        return None
    return f"the points contradict it: with E free the best fit is {math.exp(free.theta[0]):.4g}"
