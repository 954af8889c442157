"""Titles of a run's panels: what the curves in them do."""

from collections.abc import Sequence

from entropy_cli.commands.monitor.logs.series import Series
from entropy_cli.commands.monitor.result import RunFinding
from entropy_cli.results.findings import by_severity

COMPARISONS = ("rule_of_thumb", "ladder", "reference")  # which say nothing of the curve itself
# The evidence of a finding that says from where to where the loss moves.
ENDS = {
    "rebound": ("fine_minimum", "last"),
    "divergence": ("start", "last"),
    "sudden_drop": ("before", "after"),
}


def loss_title(series: Sequence[Series], findings: Sequence[RunFinding]) -> str:
    """Say the worst finding about the losses, or between which values they move."""
    names = {one.metric.name for one in series}
    about = [one for one in findings if one.series in names and one.id not in COMPARISONS]
    if not about:
        pairs = [(one.metric.name, *one.value_n[[0, -1]]) for one in series if one.metric.is_main]
        moves = [f"{x} {'falls' if b < a else 'rises'} from {a:.4g} to {b:.4g}" for x, a, b in pairs]
        return listed(moves) if moves else "Loss"
    worst = by_severity(about)[0]
    same = list(dict.fromkeys(str(one.series) for one in about if one.id == worst.id))
    ends = [worst.evidence[end] for end in ENDS.get(worst.id, ())]
    move = ", {:.3g} to {:.3g}".format(*ends) if ends and not same[1:] else ""
    return f"{worst.id.replace('_', ' ').capitalize()}: {listed(same)}{move}"


def listed(parts: Sequence[str], most: int = 2) -> str:
    """List the first parts in words, and say how many more there are."""
    more = [f"{len(parts) - most} more"] if len(parts) > most else []
    *first, last = [*parts[:most], *more]
    return f"{', '.join(first)} and {last}" if first else last
