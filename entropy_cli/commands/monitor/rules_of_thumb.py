"""Published rules of thumb with their sources, for VAR's tokenizer of 4096 codes at 256 pixels."""

import math
from collections.abc import Iterator, Sequence

from entropy_cli.commands.monitor.logs.series import Log, Series
from entropy_cli.commands.monitor.result import RunFinding
from entropy_cli.commands.monitor.start_findings import sides_of
from entropy_cli.results.floor_checks import NEAR
from entropy_cli.results.floors import Floor
from entropy_cli.results.published import VAR_CODES, VAR_PATCH_NUMS


def rules_of_thumb(log: Log, shown: Sequence[Series], floor: Floor | None) -> Iterator[RunFinding]:
    """Report published rules of thumb with their sources, all of them as information."""
    is_var = _is_published_var(log, shown, floor)
    codes = (floor and floor.vocab_size) or (VAR_CODES if is_var else None)
    for series in shown:
        metric = series.metric
        if metric.split == "train" and len(series) and metric.scope is not None:
            if codes is not None and metric.kind == "cross_entropy":
                yield from _initial_loss(series, codes)
            if is_var and not isinstance(metric.scope, int):
                yield from _var_issues(series)


def _is_published_var(log: Log, shown: Sequence[Series], floor: Floor | None) -> bool:
    """Return whether VAR trained on tokens of its published tokenizer, which its issues discuss.

    The log has to name its ten scales, or the floor has to have them, and it starts at ln 4096.
    """
    is_var = log.format.startswith("var") or any(one.metric.name.startswith("AR_") for one in shown)
    if not is_var:
        return False
    drawn = {one.metric.scope for one in shown if isinstance(one.metric.scope, int)}
    sides = sides_of(log) or tuple(sorted(drawn))
    if floor is not None and floor.is_published_var is not None:
        return floor.is_published_var and sides in ((), VAR_PATCH_NUMS)
    losses = [one for one in shown if one.metric.kind == "cross_entropy" and len(one)]
    uniform = math.log(VAR_CODES)
    return sides == VAR_PATCH_NUMS and any(abs(one.initial - uniform) < NEAR for one in losses)


def _rule_of_thumb(series: Series, message: str, value: float, source: str, **more: float) -> RunFinding:
    evidence = {"value": value, **more, "source": source}
    return RunFinding("rule_of_thumb", "info", message, series.metric.name, evidence)


def _initial_loss(series: Series, codes: int) -> Iterator[RunFinding]:
    """Say that the loss of the untrained model is ln V."""
    initial, uniform = series.untrained_value, math.log(codes)
    if initial is not None and abs(initial - uniform) < NEAR:
        message = (
            f"starts at {initial:.3f} (first step); an untrained model has ln {codes} = {uniform:.3f}: "
            "as expected, nothing to do."
        )
        yield _rule_of_thumb(series, message, initial, "ln V", expected=uniform)


def _var_issues(series: Series) -> Iterator[RunFinding]:
    """Compare with what the author and users of VAR call good or normal in its issues."""
    metric, last = series.metric, float(series.value_n[-1])
    is_mean = metric.scope == "mean"
    scope = "mean" if is_mean else "final scale"
    if metric.kind == "cross_entropy":
        advice = "; no released VAR reaches it in the mean, so it must refer to the final scale"
        message = (
            f"{last:.3f} ({scope}) is {'below' if last < 5.5 else 'above'} the 5.5 that is called good "
            f"for 4096 codes (VAR issue 53){advice if is_mean else ''}. Judge by the distance to the "
            "floor and the ceilings of this tokenizer (--floor)."
        )
        yield _rule_of_thumb(series, message, last, "FoundationVision/VAR issue 53", limit=5.5)
    elif metric.kind == "accuracy":
        normal = "4 to 6 %" if is_mean else "about 8 %"
        message = (
            f"{last:.2f} % ({scope}); {normal} is normal at the end for 4096 codes (VAR issues 130 and "
            "143): an accuracy of some per cent needs no mending."
        )
        yield _rule_of_thumb(series, message, last, "FoundationVision/VAR issues 130, 143")
