"""The ladder of hard tokens as text: its headline, its rungs, and all scales. Imports no torch."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace

from entropy_cli.core.table import Table, wrapped
from entropy_cli.entropy.ladder.ladder import Bound, Gain, Ladder

DIGITS = 4


def to_json(ladder: Ladder) -> str:
    """Return a ladder as JSON text."""
    return json.dumps(asdict(ladder), allow_nan=False, indent=1)


def at_most(ladder: Ladder, units: str = "nats") -> str:
    """Return the lowest rung in a few words."""
    limit = round_up(unit(units) * ladder.lowest.upper95, 2)
    return f"irreducible loss at most {limit} {units}, held out ({ladder.lowest.rung} rung)"


def headline(ladder: Ladder, units: str = "nats") -> str:
    """Return what the ladder says, in a sentence."""
    per_nat = unit(units)
    rung = ladder.lowest.rung
    most = f"at most {round_up(per_nat * ladder.lowest.upper95, 3)} {units} per token (95 %), held out"
    text = f"Irreducible loss of the hard tokens: {most}, by the {rung} rung"
    if ladder.floor is None:
        return f"{text}. How far below it lies is not known."
    least = round_down(per_nat * ladder.floor.value, 3)
    return f"{text}; at least {least} without assumptions. Where it lies between is not known."


def unit(units: str) -> float:
    """Return how many of a unit, nats or bits, are a nat."""
    return 1.0 if units == "nats" else 1 / math.log(2)


def render(ladder: Ladder, units: str = "nats", *, table: bool = False, explain: bool = False) -> str:
    """Return a ladder as text for a terminal.

    Args:
        ladder: the ladder to show.
        units: "nats" or "bits".
        table: whether all scales follow.
        explain: whether the weights, and what is refused and why, follow.
    """
    parts = [wrapped("", headline(ladder, units)), _source(ladder), rungs_table(ladder, units).text()]
    if ladder.model is not None:
        value = f"{ladder.model.cross_entropy:.{DIGITS}f} nats"
        parts.append(wrapped("", f"your model: {value}, {ladder.model.message}"))
    notes = [wrapped("note: ", note) for note in ladder.notes]
    parts.append("\n".join([*_memorisation(ladder, units), *notes]))
    if table:
        parts.append(scales_table(ladder, units).text())
    if explain:
        refused = (wrapped(f"{r.id.replace('_', ' ')}: ", r.reason) for r in ladder.refused)
        parts += ["\n".join(["Weights", *_weights(ladder)]), "\n".join(["Refused", *refused])]
    return "\n\n".join(filter(None, parts))


def _source(ladder: Ladder) -> str:
    counts, settings = ladder.tokens, ladder.settings
    kinds = "" if settings.classes is None else f", {settings.classes:,} folders as classes"
    by = "" if settings.cluster == "image" else ", groups of folders"
    return wrapped(
        "",
        f"{counts.images:,} images of {counts.tokens} tokens, {counts.vocab_size:,} codes{kinds}; "
        f"context {settings.context}; {settings.folds} folds{by}, seed {settings.seed}",
    )


def rungs_table(ladder: Ladder, units: str = "nats") -> Table:
    """Return the rungs: what each sees, its averages and what it gains over the one before."""
    per_nat = unit(units)
    several = len(ladder.scale_tokens) > 1
    rows = []
    for rung in ladder.rungs:
        mean, final = rung.average.token_weighted, rung.average.last_scale
        row = [rung.id, _number(mean, per_nat), round_up(per_nat * mean.upper95, DIGITS)]
        rows.append([*row, _gain(rung.gain, per_nat), _number(final, per_nat), rung.sees])
    head = ["rung", f"{units}/\ntoken", "at most\n(95 %)", "gain", "final\nscale", "sees"]
    caption = "held-out upper bounds of the irreducible loss, mean over all tokens; gain: over the rung "
    caption += "above, ± half-width of its 95 % interval"
    columns = range(6) if several else (0, 1, 2, 3, 5)
    return Table("ladder", "", head, rows, caption, left=(0, 5)).select(columns)


def scales_table(ladder: Ladder, units: str = "nats") -> Table:
    """Return the rungs at each scale, and the bracket of the unigram."""
    per_nat = unit(units)
    rows = []
    for s, (side, tokens) in enumerate(zip(ladder.patch_nums, ladder.scale_tokens, strict=True)):
        name = f"scale {s}: {tokens} tokens" if side is None else f"{side}x{side}"
        plug_in, held_out = ladder.bracket[s].plug_in, ladder.bracket[s].held_out
        bracket = f"{per_nat * plug_in:.3f} to {per_nat * held_out:.3f}"
        rows.append([name, *(_number(rung.scales[s], per_nat) for rung in ladder.rungs), bracket])
    head = ["scale", *(rung.id for rung in ladder.rungs), "unigram lies\nbetween"]
    return Table("ladder-scales", "Rungs by scale", head, rows, f"{units} per token")


def report_tables(ladder: Ladder | None) -> list[Table]:
    """Return the tables of a ladder for a report, with what it says; none if there is no ladder."""
    if ladder is None:
        return []
    rungs = replace(rungs_table(ladder), title="Ladder of the hard tokens", notes=[headline(ladder)])
    return [rungs, scales_table(ladder)]


def ladders_tables(named: Mapping[str, Ladder | None]) -> list[Table]:
    """Return the token-weighted rungs of several ladders side by side; no table if there are none."""
    ladders = {name: ladder for name, ladder in named.items() if ladder is not None}
    ids = dict.fromkeys(rung.id for ladder in ladders.values() for rung in ladder.rungs)
    rows = []
    for name, ladder in ladders.items():
        mean = {rung.id: _number(rung.average.token_weighted, 1.0) for rung in ladder.rungs}
        at_least = "" if ladder.floor is None else round_down(ladder.floor.value, DIGITS)
        most = round_up(ladder.lowest.upper95, DIGITS)
        rows.append([name, *(mean.get(rung, "") for rung in ids), most, at_least])
    head = ["", *ids, "at most\n(95 %)", "at least\n(95 %)"]
    caption = "nats per token, held-out upper bounds of the irreducible loss of hard tokens"
    return [Table("ladders", "Ladders of the hard tokens", head, rows, caption)] if rows else []


def _memorisation(ladder: Ladder, units: str) -> list[str]:
    """Return what memorising the training images reaches, if they are some."""
    if ladder.memorisation is None:
        return []
    least = f"{unit(units) * ladder.memorisation.least_loss:.4f} {units}"
    return [
        wrapped(
            "",
            f"Memorisation (no bound of new images' loss): the training loss can fall to {least} per "
            f"token; after token {ladder.memorisation.cliff_token} the training images alone decide "
            "what follows.",
        )
    ]


def _weights(ladder: Ladder) -> list[str]:
    """Return the mean weights of the last rung's predictors over scales, weighted by tokens."""
    total: dict[str, float] = {}
    tokens = sum(ladder.scale_tokens)
    last = next(rung for rung in ladder.rungs if rung.id == ladder.lowest.rung)
    for size, weights in zip(ladder.scale_tokens, last.weights, strict=True):
        for name, weight in weights.items():
            total[name] = total.get(name, 0.0) + weight * size / tokens
    return [f"{name}: {weight:.3f}" for name, weight in sorted(total.items(), key=lambda w: -w[1])]


def _number(bound: Bound, per_nat: float) -> str:
    return f"{per_nat * bound.value:.{DIGITS}f}"


def round_up(value: float, digits: int) -> str:
    """Round a limit up, so that it stays one."""
    return f"{math.ceil(value * 10**digits - 1e-9) / 10**digits:.{digits}f}"


def round_down(value: float, digits: int) -> str:
    """Round a limit from below down, so that it stays one."""
    return f"{math.floor(value * 10**digits + 1e-9) / 10**digits:.{digits}f}"


def _gain(gain: Gain | None, per_nat: float) -> str:
    if gain is None:
        return ""
    half = (gain.ci95[1] - gain.ci95[0]) / 2
    return "no gain" if gain.is_none else f"{per_nat * gain.value:.4f} ± {per_nat * half:.4f}"
