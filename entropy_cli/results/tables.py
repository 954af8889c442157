"""A result as text for a terminal."""

import math
from collections.abc import Sequence
from typing import Any

from entropy_cli.core.text import definitions, wrapped
from entropy_cli.entropy.quantity import MIN_IMAGES, MIN_IMAGES_PER_GROUP, Estimate
from entropy_cli.results import schema
from entropy_cli.results.legend import averages, is_counted, legend
from entropy_cli.results.notes import notes
from entropy_cli.results.schema import SOFT, Result

UNKNOWN = "-"
PER_NAT = {"nats": 1.0, "bits": 1 / math.log(2)}
SPLITS = ("train", "val", "all")

# The full name is in the legend; here it would make the table wider than a terminal.
UNWEIGHTED_ROW = ("unweighted", "mean of scales")

Cell = tuple[str, str]  # two lines


def render(result: Result, units: str = "nats") -> str:
    """Return the headline, the tables with their legend, the provenance and the notes.

    Args:
        result: the result to show.
        units: "nats" or "bits".
    """
    counted = is_counted(result)
    parts = [
        _headline(result, units),
        f"Soft assignment, {units} per token\n" + _soft(result, PER_NAT[units]),
    ]
    if counted:
        parts.append(
            f"Hard tokens: the nearest codes, {units} per token\n" + _hard(result, PER_NAT[units])
        )
    if len(result.temperatures) > 1:
        curve = _curve(result, PER_NAT[units])
        parts.append(f"Assignment entropy at each temperature, {units} per token\n" + curve)
    parts += [
        "value ± standard error, below it the 95 % interval; ≥ marks a lower bound, without interval"
        + ("\n" if counted else "; ≤ an upper bound\n")
        + definitions(legend(result, units)),
        definitions(provenance(result)),
        "Notes\n" + "\n".join(wrapped(f"{i}. ", note) for i, note in enumerate(notes(result), 1)),
    ]
    return "\n\n".join(parts)


def _headline(result: Result, units: str) -> str:
    average = result.average.token_weighted.assignment_entropy
    value, interval = _cell(average, PER_NAT[units])
    temperature = _number(result.settings.temperature)
    at = "T fitted to each scale" if temperature == "auto" else f"T = {temperature}"
    which = "token-weighted average, " if len(result.scales) > 1 else ""
    return (
        f"Assignment entropy (VAR-style irreducible loss) at {at}: {value} {units} per token\n"
        f"{which}{f'95 % interval {interval}' if interval else 'no interval'}; "
        f"images: {result.data.images_used}"
    )


def _soft(result: Result, factor: float) -> str:
    head = ["scale", "T", *(name.replace("_", " ") for name in SOFT)]
    rows = [
        [
            (scale.name, ""),
            (f"{scale.temperature:g}", ""),
            *(_cell(estimate, factor) for estimate in scale.soft),
        ]
        for scale in result.scales
    ]
    for label, average in _averages(result):
        rows.append([label, ("", ""), *(_cell(estimate, factor) for estimate in average.soft)])
    return _table(head, rows, len(result.scales))


def _averages(result: Result) -> list[tuple[Cell, schema.Estimates]]:
    """Return the averages to show, with the labels of their rows."""
    labels = {kind: (name, "") for kind, name in averages(result).items()}
    if "over_scales" in labels:
        labels["over_scales"] = UNWEIGHTED_ROW
    return [(label, getattr(result.average, kind)) for kind, label in labels.items()]


def _hard(result: Result, factor: float) -> str:
    head = ["scale", "tokens", "unigram entropy", "perplexity", "codebook usage", "coverage"]
    rows = []
    for label, estimates in [*(((s.name, ""), s) for s in result.scales), *_averages(result)]:
        rows.append(
            [
                label,
                (str(getattr(estimates, "tokens", "")), ""),
                _cell(estimates.unigram_entropy, factor),
                _cell(estimates.perplexity, digits=1),
                _cell(estimates.usage_estimate, 100, digits=1, unit=" %"),
                (_coverage(estimates), ""),
            ]
        )
    return _table(head, rows, len(result.scales))


def _coverage(estimates: schema.ScaleResult | schema.Estimates) -> str:
    if not isinstance(estimates, schema.ScaleResult):
        return ""
    return UNKNOWN if estimates.coverage is None else f"{estimates.coverage:.4f}"


def _curve(result: Result, factor: float) -> str:
    kinds = averages(result) or {"token_weighted": "assignment entropy"}
    varentropy = "varentropy, token-weighted" if len(result.scales) > 1 else "varentropy"
    head = ["T", *kinds.values(), varentropy]
    rows = []
    for one in result.temperatures:
        estimates = [getattr(one.average, kind).assignment_entropy for kind in kinds]
        estimates.append(one.average.token_weighted.varentropy)
        rows.append([(f"{one.temperature:g}", ""), *(_cell(estimate, factor) for estimate in estimates)])
    return _table(head, rows, len(rows))


def provenance(result: Result) -> dict[str, str]:
    """Return the inputs and settings of a result, and how it was computed, by label."""
    data, tokenizer, settings = result.data, result.tokenizer, result.settings
    origin = result.provenance
    scales = ",".join(str(scale.patch_num or scale.tokens) for scale in result.scales)
    groups = sum(1 for images in result.replicates["images"] if images)
    kind = {"sign": "bits", "bsq": "bits", "levels": "levels"}.get(tokenizer.rule, "dimensions")
    return {
        "images": f"{_shard(origin)}{data.images_used} of {data.images_found} used, "
        f"{data.images_failed} unreadable; "
        f"{f'split {data.split}, ' if data.split in SPLITS else ''}{origin['data']}, "
        f"order and groups by seed {settings.seed}",
        "preprocessing": settings.preprocess,
        "tokenizer": f"family {tokenizer.family}, {tokenizer.vocab_size} codes of "
        f"{tokenizer.latent_dim} {kind}, {tokenizer.rule} rule, scales {scales}, "
        f"{sum(scale.tokens for scale in result.scales)} tokens an image"
        + (f" of {settings.image_size} px" if settings.image_size else ""),
        **_checkpoint(result),
        "temperature": f"{_number(settings.temperature)}: {settings.temperature_source}"
        + _hard_fit(result),
        **_target(result),
        **_precision(result),
        "computed": f"in {settings.precision} " + _machine(origin),
        "errors": f"delete-a-group jackknife over {groups} groups of images, Student's t",
    }


def _checkpoint(result: Result) -> dict[str, str]:
    """Return the checkpoint's file, weights and hash; nothing if there is no file."""
    origin, sha256 = result.provenance, result.tokenizer.checkpoint_sha256
    if sha256 is None:
        return {}
    several = len(origin.get("checkpoint_copies", [])) > 1
    weights = f", {origin['checkpoint_weights']} weights of the two it holds" if several else ""
    return {"checkpoint": f"{origin['checkpoint']}{weights} (sha256 {sha256[:16]}...)"}


def _target(result: Result) -> dict[str, str]:
    """Return whether early stopping reached its target, if the run had one."""
    if result.target_reached is None:
        return {}
    used, found = result.data.images_used, result.data.images_found
    widest = result.history[-1].widest
    current = "" if widest is None else f"; the widest interval of the averages is ± {widest:.4f}"
    outcome = f": {used} images were enough, the full set has {found}"
    if not result.target_reached:
        outcome = f" was not reached with {used} images"
        if widest is not None and widest <= result.provenance["target_ci"]:
            outcome += (
                f": early stopping needs {MIN_IMAGES} images, {MIN_IMAGES_PER_GROUP} in each group, "
                "and two checks in a row that meet the target"
            )
    return {"target": f"± {result.provenance['target_ci']:g} nats{outcome}{current}"}


def _precision(result: Result) -> dict[str, str]:
    """Return how much an encoder in less than float32 precision changes the result."""
    check = result.precision_check
    if check is None:
        return {}
    difference = check["assignment_entropy_difference_token_weighted"]
    largest = max(map(abs, check["assignment_entropy_difference"]))
    return {
        "precision": f"{result.settings.precision} against {check['reference']} on the first "
        f"{check['images']} images: {check['tokens_changed_overall']:.2%} of the nearest codes change, "
        f"the token-weighted assignment entropy by {difference:+.1e} nats (at a scale by at most "
        f"{largest:.1e}), latents by {check['latent_relative_error']:.1e} of their size"
    }


def _shard(origin: dict[str, Any]) -> str:
    shard = origin.get("shard")
    return f"ONLY SHARD {shard[0]}/{shard[1]}: " if shard else ""


def _machine(origin: dict[str, Any]) -> str:
    """Describe the device, the time and the speed of a run, or the states that were merged."""
    if "states" in origin:
        return f"by adding {len(origin['states'])} state{'s' if len(origin['states']) > 1 else ''}"
    processes = f"{origin['processes']} processes " if origin["processes"] > 1 else ""
    resumed = origin["images_resumed"]
    return (
        f"{processes}on {origin['device']}, {origin['seconds']:.1f} s, "
        f"{origin['images_per_s']:.1f} images/s"
        + (f", {resumed} images from earlier runs" if resumed else "")
    )


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _hard_fit(result: Result) -> str:
    """Describe the temperatures fitted to the nearest codes alone: too low where clusters overlap."""
    fit = result.provenance.get("temperature_fit")
    values = ", ".join(map(_number, fit["hard"])) if fit else ""
    return f"; from the nearest codes alone it would be {values}" if fit else ""


def _cell(estimate: Estimate, factor: float = 1.0, digits: int = 4, unit: str = "") -> Cell:
    """Format an estimate as two lines: value and standard error, then the interval."""
    if estimate.value is None:
        return UNKNOWN, ""
    rounded = round(factor * estimate.value, digits) + 0.0  # not -0.0000
    value = f"{estimate.sign}{rounded:.{digits}f}"
    if estimate.se is not None:
        value += f" ± {factor * estimate.se:.{digits}f}"
    if estimate.ci95 is None:
        return value + unit, ""
    low, high = (f"{factor * bound:.{digits}f}" for bound in estimate.ci95)
    return value + unit, f"{low} to {high}"


def _table(head: Sequence[str], rows: Sequence[Sequence[Cell]], rule_after: int) -> str:
    """Format two-line cells in columns, with rules below the header and after `rule_after` rows."""
    lines = [list(head)]
    for i, row in enumerate(rows):
        if i == rule_after:
            lines.append([])
        lines.append([cell[0] for cell in row])
        if any(cell[1] for cell in row):
            lines.append([cell[1] for cell in row])
    lines.insert(1, [])
    widths = [max(map(len, column)) for column in zip(*filter(None, lines), strict=True)]
    text = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=False)).rstrip()
        for line in lines
    ]
    rule = "-" * max(map(len, text))
    text = [line or rule for line in text]
    return "\n".join(text)
