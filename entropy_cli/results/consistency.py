"""Check that the parts of a result that was read fit each other: its types were checked before."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

from entropy_cli.core.documents import from_json
from entropy_cli.entropy.ladder.ladder import Ladder
from entropy_cli.entropy.quantity import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    MOST_TEMPERATURES,
    QUANTITIES,
    Estimate,
)

if TYPE_CHECKING:
    from entropy_cli.results.schema import Estimates, Result


class Pilot(TypedDict):
    """The record of how the temperatures were fitted."""

    images: int
    hard: list[float]
    steps: list[int]
    ended: list[str]


class PrecisionCheck(TypedDict):
    """The measured effect of the encoder's precision."""

    images: int
    reference: str
    latent_relative_error: float
    latent_largest_error: float
    tokens_changed: list[float]
    tokens_changed_overall: float
    assignment_entropy_difference: list[float]
    assignment_entropy_difference_token_weighted: float


class PartOrigin(TypedDict, total=False):
    """How a part of a merged result was computed; its keys that are read."""

    device: str
    batch_size: int
    torch: str
    seconds: float


class Origin(TypedDict, total=False):
    """The keys of the provenance that are read."""

    checkpoint: str | None
    checkpoint_weights: str
    checkpoint_copies: list[str]
    checkpoint_notes: list[str]
    checkpoint_scales: int | None
    checkpoint_evidence: list[str]
    codebook_notes: list[str]
    repeats: int
    temperature_from: str | None
    command: str
    temperature_fit: Pilot | None
    temperature_if_hard: list[float] | None
    temperature_implied: list[float] | None
    target_ci: float | None
    shard: tuple[int, int] | None
    runs: list[PartOrigin]


class SomeOrigin(Origin):
    """The keys of every provenance."""

    data: str


class RunOrigin(SomeOrigin):
    """The provenance of a run."""

    device: str
    processes: int
    seconds: float
    images_per_s: float
    images_resumed: int


class MergeOrigin(SomeOrigin):
    """The provenance of merged states."""

    states: list[str]


ROUNDING = 1e-6  # nats
MOST_SCALES, MOST_CHECKS, MOST_RUNGS, MOST_LOSS = 1000, 100, 16, 10**6


def check_consistency(result: "Result") -> None:
    """Check lengths, signs and ranges.

    Raises:
        ValueError: naming the path of the first part that no estimate writes.
    """
    scales = len(result.scales)
    require(0 < scales <= MOST_SCALES, "scales", f"1 to {MOST_SCALES}")
    if result.precision_check is not None:
        check = part_of(result.precision_check, PrecisionCheck, "precision_check")
        for name in ("tokens_changed", "assignment_entropy_difference"):
            require(len(check[name]) == scales, f"precision_check.{name}", f"{scales} numbers")
    _check_origin(result)
    require(result.tokenizer.vocab_size > 0, "tokenizer.vocab_size", "at least 1")
    require(result.data.images_used > 0, "data.images_used", "at least 1")
    for s, scale in enumerate(result.scales):
        require(scale.tokens > 0, f"scales[{s}].tokens", "at least 1")
        in_range = LOWEST_TEMPERATURE <= scale.temperature <= HIGHEST_TEMPERATURE
        require(in_range, f"scales[{s}].temperature", "a positive number")
    lengths = {len(scale.code_counts) for scale in result.scales if scale.code_counts is not None}
    if result.pooled is not None:
        require(len(lengths) < 2, "scales", "as many code_counts at each, as there is pooled")
    for name, most in (("temperatures", MOST_TEMPERATURES), ("checks", MOST_CHECKS)):
        require(len(getattr(result, name)) <= most, name, f"at most {most}")
    for t, one in enumerate(result.temperatures):
        require(len(one.scales) == scales, f"temperatures[{t}].scales", f"{scales} scales")
    check_estimates(result)
    for name, average in result.average.items():
        path = f"average.{name}.assignment_entropy.value"
        require(average.assignment_entropy.value is not None, path, "a number")
    _check_entropies(result)
    _check_groups(result)
    if result.ladder is not None:
        _check_ladder(result.ladder, [scale.tokens for scale in result.scales])


def _check_origin(result: "Result") -> None:
    """Check that the provenance has what is shown of it."""
    kind = MergeOrigin if "states" in result.provenance else RunOrigin
    origin = part_of(result.provenance, kind, "provenance")
    if result.tokenizer.checkpoint_sha256 is not None:
        require("checkpoint" in origin, "provenance.checkpoint", "the file")
    if len(origin.get("checkpoint_copies", [])) > 1:
        require("checkpoint_weights" in origin, "provenance.checkpoint_weights", "the copy")
    if result.target_reached is not None:
        require(origin.get("target_ci") is not None, "provenance.target_ci", "the target")
        require(bool(result.history), "history", "entries, as there is a target")
    for key in ("temperature_implied", "temperature_if_hard"):
        value_S = origin.get(key)
        fits = value_S is None or (len(value_S) == len(result.scales) and min(value_S) >= 0)
        require(fits, f"provenance.{key}", f"{len(result.scales)} numbers from 0")


def _check_entropies(result: "Result") -> None:
    """Check that entropies are from 0 to ln V."""
    largest = math.log(result.tokenizer.vocab_size)
    parts: list[tuple[str, Estimates]] = [(f"scales[{s}]", of) for s, of in enumerate(result.scales)]
    parts += [(f"average.{name}", of) for name, of in result.average.items()]
    for path, estimates in parts:
        for name in ("assignment_entropy", "marginal_entropy", "unigram_entropy"):
            value = getattr(estimates, name).value
            fits = value is None or -ROUNDING <= value <= largest + ROUNDING
            require(fits, f"{path}.{name}.value", f"a number from 0 to ln V = {largest:.4f}")
        if (found := estimates.unigram_bracket) is not None:
            ends = (found.plug_in, found.held_out, found.upper95)
            fits = found.se >= 0 and all(-ROUNDING <= end <= largest + ROUNDING for end in ends)
            require(fits, f"{path}.unigram_bracket", f"numbers from 0 to ln V = {largest:.4f}")


def check_estimates(part: Any) -> None:  # noqa: ANN401 - any part
    """Check the errors of all estimates in a part of a result.

    Raises:
        ValueError: naming the path of the first one that no run writes.
    """
    for path, estimate in _estimates(part, ""):
        require(estimate.se is None or estimate.se >= 0, f"{path}.se", "a number from 0")
        ci95 = estimate.ci95
        require(ci95 is None or ci95[0] <= ci95[1], f"{path}.ci95", "the lower limit first")
        require(ci95 is None or estimate.value is not None, f"{path}.value", "a number in its interval")


def _check_groups(result: "Result") -> None:
    """Check that each group of images has its count and, for each quantity, a number a scale."""
    groups = result.settings.groups
    images_G: Any = result.replicates.get("images")
    is_counts = isinstance(images_G, list) and all(type(n) is int and n >= 0 for n in images_G)
    require(is_counts and len(images_G) == groups, "replicates.images", f"{groups} counts")
    used = result.data.images_used
    require(sum(images_G) == used, "replicates.images", f"{used} images in all")
    for name in QUANTITIES:
        is_needed = name == QUANTITIES[0] and sum(n > 0 for n in images_G) > 1
        check_replicates(result, name, required=is_needed)


def check_replicates(result: "Result", name: str, *, required: bool) -> None:
    """Check that a quantity has replicates of each group and scale, or none.

    Raises:
        ValueError: it is another table, or there is none where one is required.
    """
    groups, scales, path = result.settings.groups, len(result.scales), f"replicates.{name}"
    value_GS: Any = result.replicates.get(name, [])
    require(not required or name in result.replicates, path, "its replicates")
    is_table = isinstance(value_GS, list) and all(
        isinstance(row_S, list) and len(row_S) == scales and all(map(_is_number, row_S))
        for row_S in value_GS
    )
    require(is_table and len(value_GS) in (0, groups), path, f"{groups} rows of {scales} numbers")


def _check_ladder(ladder: Ladder, tokens_S: list[int]) -> None:
    """Check that a ladder is of these scales, and that its numbers are losses."""
    require(ladder.scale_tokens == tokens_S, "ladder.scale_tokens", "the tokens of the scales")
    for name in ("patch_nums", "bracket"):
        require(len(getattr(ladder, name)) == len(tokens_S), f"ladder.{name}", "one for each scale")
    ids = [rung.id for rung in ladder.rungs]
    few = 1 < len(ids) <= MOST_RUNGS
    require(few and len(set(ids)) == len(ids), "ladder.rungs", f"2 to {MOST_RUNGS}, of different ids")
    require(ladder.lowest.rung in ids, "ladder.lowest.rung", "one of the rungs")
    for i, rung in enumerate(ladder.rungs):
        is_whole = len(rung.scales) == len(rung.weights) == len(tokens_S)
        require(is_whole, f"ladder.rungs[{i}].scales", "one for each scale, with weights")
        require((rung.gain is None) == (i == 0), f"ladder.rungs[{i}].gain", "one but for the first")
    path = _unlike_a_loss(asdict(replace(ladder, provenance={})), "ladder")
    require(path is None, str(path), f"a number from -{MOST_LOSS:,} to {MOST_LOSS:,}")


def _unlike_a_loss(part: Any, path: str) -> str | None:  # noqa: ANN401 - any part
    """Return the path of the first float that is larger than a loss may be."""
    if isinstance(part, float):
        return None if abs(part) <= MOST_LOSS else path
    items: Iterable[tuple[Any, Any]] = part.items() if isinstance(part, dict) else ()
    items = enumerate(part) if isinstance(part, list | tuple) else items
    found = (_unlike_a_loss(inner, f"{path}.{key}") for key, inner in items)
    return next((inner for inner in found if inner is not None), None)


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and math.isfinite(value))


def _estimates(part: Any, path: str) -> Iterator[tuple[str, Estimate]]:  # noqa: ANN401 - any part
    if isinstance(part, Estimate):
        yield path, part
    elif isinstance(part, list):
        for i, inner in enumerate(part):
            yield from _estimates(inner, f"{path}[{i}]")
    elif is_dataclass(part):
        for field in fields(part):
            inner_path = f"{path}.{field.name}" if path else field.name
            yield from _estimates(getattr(part, field.name), inner_path)


def part_of(content: dict[str, Any], kind: Any, path: str) -> Any:  # noqa: ANN401 - a TypedDict
    """Return a part of a result as a TypedDict.

    Raises:
        ValueError: naming the path of the first key that is missing or of another type.
    """
    try:
        return from_json(content, kind, unknown=True)
    except ValueError as error:
        message = str(error) if "`$" in str(error) else f"{error} - at `$`"
        raise ValueError(message.replace("`$", f"`$.{path}")) from error


def require(holds: bool, path: str, expected: str) -> None:  # noqa: FBT001 - an assertion
    """Raise ValueError naming the path unless a condition holds."""
    if not holds:
        raise ValueError(f"expected {expected} - at `$.{path}`")
