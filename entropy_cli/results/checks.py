"""Checks of a result: what a reader should know before quoting its number."""

import math
from collections.abc import Iterable, Iterator, Sequence

from entropy_cli.entropy.quantity import Estimate, TemperatureChoice
from entropy_cli.results.legend import AVERAGES
from entropy_cli.results.path import is_drawn, is_on_other_path, labels_of
from entropy_cli.results.schema import Check, Result, Severity, TemperatureResult

FEW_IMAGES = 1000
HOT_SHARE = 0.9  # of ln V: above it the assignment hardly depends on the latent
WIDE = 0.05  # half-width of an interval, in nats
STEEP = 0.01  # nats for a change of T by SLOPE_STEP
UNREADABLE_SHARE = 0.01
REPEATED_SHARE = 0.001  # of the images, that repeat another
PRECISION_SHARE = 0.1  # of the half-width, that the encoder's precision may cost
SLOPE_STEP = 0.1  # relative change of the temperature


def find_checks(result: Result) -> list[Check]:
    """Return the checks that apply to a result, the most severe first."""
    found = [
        *_labels_of_floor(result),
        *_above_unigram(result),
        *_images(result),
        *_interval(result),
        *_undersampled(result),
        *_grids(result),
        *_precision(result),
        *_temperature(result),
        *_codes(result),
    ]
    return by_severity(found)


def by_severity(checks: Iterable[Check]) -> list[Check]:
    """Return checks, the most severe first."""
    return sorted(checks, key=lambda check: ("wrong", "care", "ok").index(check.severity))


def number_or_auto(temperature: TemperatureChoice) -> str:
    """Return a temperature as it is given."""
    return temperature if isinstance(temperature, str) else f"{temperature:g}"


def temperature_text(temperature: TemperatureChoice) -> str:
    """Describe a temperature in a sentence."""
    return "fitted T" if temperature == "auto" else f"T = {temperature:g}"


def _headline(result: Result) -> Estimate:
    return result.average.token_weighted.assignment_entropy


def _labels_of_floor(result: Result) -> Iterator[Check]:
    labels, is_fit = result.tokenizer.labels, False
    if is_on_other_path(result):
        words = (
            "models on these tokens train on soft labels of drawn codes, which are subtracted: this A "
            "is of the nearest codes' path, take --path drawn"
        )
    elif labels == "soft":
        is_fit, words = True, "models on these tokens train on soft or sampled labels"
    elif is_drawn(result):
        words = (
            "A is a floor for labels that are drawn as here, or soft ones; none for the nearest codes"
        )
    else:
        who = "models on these tokens train" if labels == "hard" else "a model may train"
        words = f"{who} on hard labels, the nearest codes: A is a floor for soft or sampled labels only"
    yield Check("labels_of_floor", "ok" if is_fit else "care", words)


def _above_unigram(result: Result) -> Iterator[Check]:
    """Compare A at every temperature with what a constant prediction of hard labels reaches, U.

    Under soft labels a constant prediction reaches the marginal entropy, which A never exceeds.
    """
    unigram, most = result.average.token_weighted.unigram_entropy, result.average.token_weighted.ceiling
    if labels_of(result) == "soft":
        most = None
    hot = HOT_SHARE * math.log(result.tokenizer.vocab_size)
    entropies = [(at, at.average.token_weighted.assignment_entropy) for at in result.temperatures]
    over = [
        (at, a) for at, a in entropies if most is not None and a.known > most + (a.half_width or 0.0)
    ]
    too_hot = [(at, a) for at, a in entropies if a.known > hot]
    if over:
        severity: Severity = "wrong" if over[0][0] is result.temperatures[0] else "care"
        yield Check(
            "above_unigram",
            severity,
            f"A at {_listed(over)} is above U (at most {most:.2f} nats): it says nothing about hard "
            "labels, whose frequencies alone predict better; take a lower T",
        )
    elif too_hot:
        yield Check(
            "above_unigram",
            "care",
            f"A at {_listed(too_hot)} is over {100 * HOT_SHARE:.0f} % of ln V: q is nearly uniform and "
            "says little; take a lower T",
        )
    elif most is not None and entropies[0][1].known <= (unigram.value or 0.0):
        yield Check("above_unigram", "ok", "A below U")


def _listed(entropies: Sequence[tuple[TemperatureResult, Estimate]]) -> str:
    """Name temperatures, at most three, and their entropies."""
    named = [f"{temperature_text(at.temperature)} ({a.known:.2f})" for at, a in entropies[:3]]
    more = [f"{len(entropies) - 3} more"] if len(entropies) > 3 else []
    return ", ".join([*named, *more])


def _images(result: Result) -> Iterator[Check]:
    data, shard = result.data, result.provenance.get("shard")
    if shard is not None:
        yield Check(
            "shard", "care", f"only shard {shard[0]}/{shard[1]} of the images: merge all for the whole"
        )
    if data.images_failed:
        share = data.images_failed / (data.images_used + data.images_failed)
        yield Check(
            "unreadable",
            "wrong" if share > UNREADABLE_SHARE else "care",
            f"{_count(data.images_failed)} could not be read, and are not in the result",
        )
    repeats = result.provenance.get("repeats", 0)
    if repeats > REPEATED_SHARE * data.images_used:
        yield Check("repeats", "care", f"{_count(repeats)} repeat another: the intervals are too narrow")
    if data.images_used < FEW_IMAGES:
        yield Check("few_images", "care", f"only {_count(data.images_used)}: see the intervals")
    if data.split == "train":
        yield Check(
            "crops_of_train",
            "care",
            "centre crops of the train split; a training loss is measured on random crops",
        )


def _count(images: int) -> str:
    return f"{images:,} image{'' if images == 1 else 's'}"


def _interval(result: Result) -> Iterator[Check]:
    half_width = _headline(result).half_width
    if half_width is None:
        yield Check("wide_interval", "care", "no interval: too few images to tell")
    elif half_width > WIDE:
        yield Check(
            "wide_interval", "care", f"the interval of A is ± {half_width:.2f} nats: use more images"
        )
    else:
        yield Check("wide_interval", "ok", "interval narrow")


def _undersampled(result: Result) -> Iterator[Check]:
    for name in ("unigram", "marginal"):
        under = [
            scale.name for scale in result.scales if getattr(scale, f"{name}_entropy").bound == "lower"
        ]
        if under:
            shown = ", ".join(under[:3]) + (f" and {len(under) - 3} more" if under[3:] else "")
            is_limited = name == "unigram" and result.average.token_weighted.ceiling is not None
            after = "the held-out value is an upper bound" if is_limited else "no ceiling of a loss"
            yield Check(
                "undersampled",
                "care",
                f"too few images for the {name} entropy at {shown}: a lower bound (≥); {after}",
            )
            return


def _grids(result: Result) -> Iterator[Check]:
    counted, scales = result.provenance.get("checkpoint_scales"), len(result.scales)
    if counted == scales:
        yield Check("grids", "ok", "as many scales as the checkpoint counted")
    elif counted is not None:
        yield Check(
            "grids",
            "care",
            f"the checkpoint counted codes at {counted} scales, this run has {scales}: check "
            "--patch-nums and --image-size",
        )


def _precision(result: Result) -> Iterator[Check]:
    """Compare what the encoder's precision costs with the interval of each average of A."""
    record, name = result.precision_check, result.settings.precision
    if record is None:
        return
    if not record["images"]:
        words = f"{name} was not compared with fp32: none of the first images could be read"
        yield Check("precision", "care", words)
        return
    difference_S = record["assignment_entropy_difference"]
    costs = {
        "token_weighted": record["assignment_entropy_difference_token_weighted"],
        "over_scales": sum(difference_S) / len(difference_S),
        "last_scale": difference_S[-1],
    }
    for kind, cost in costs.items():
        half_width = getattr(result.average, kind).assignment_entropy.half_width
        if half_width is not None and abs(cost) <= PRECISION_SHARE * half_width:
            continue
        of = "A" if kind == "token_weighted" else f"A ({AVERAGES[kind]})"
        words = f"{name} moves {of} by {cost:+.2g} nats on the first {_count(record['images'])}"
        if half_width is not None:
            words += f", over a tenth of its interval, ± {half_width:.2g}"
        yield Check("precision", "care", words)
        return
    yield Check("precision", "ok", f"{name} as good as fp32")


def _temperature(result: Result) -> Iterator[Check]:
    average, half_width = result.average.token_weighted, _headline(result).half_width or 0.0
    slope = average.varentropy.known * math.log1p(SLOPE_STEP)
    severity: Severity = "care" if slope > max(half_width, STEEP) else "ok"
    if severity == "care":
        at = temperature_text(result.settings.temperature)
        words = f"A at {at} moves by {slope:.2g} nats for each {100 * SLOPE_STEP:.0f} % of T"
    else:
        words = "A steady in T"
    yield Check("temperature_slope", severity, words)
    moved, fit = drift(result), result.provenance.get("temperature_fit")
    if moved is None or (fit is not None and fit["images"] >= result.data.images_used):
        return  # it was fitted to all images
    if abs(moved) > max(half_width, WIDE / 10):
        yield Check(
            "temperature_drift",
            "care",
            f"one more step of the temperature fit, on all images read, moves A by {moved:+.3f} nats",
        )
    else:
        yield Check("temperature_drift", "ok", "fitted T holds on all images")


def drift(result: Result) -> float | None:
    """Return how far one more step of the fit, on all images, moves A, to first order in ln T.

    In nats per token, the average over all tokens; None if none was fitted, or no step is possible.
    """
    implied = result.provenance.get("temperature_implied")
    fitted = next((at for at in result.temperatures if at.temperature == "auto"), None)
    if not implied or fitted is None or min(implied) == 0:
        return None
    tokens, total = 0, 0.0
    for scale, at, temperature in zip(result.scales, fitted.scales, implied, strict=True):
        log_ratio = math.log(temperature / at.temperature)
        tokens += scale.tokens
        total += scale.tokens * at.varentropy.known * log_ratio
    return total / tokens


def _codes(result: Result) -> Iterator[Check]:
    if result.provenance.get("codebook_notes"):
        yield Check(
            "near_duplicate_codes",
            "care",
            "over 1 % of the codes coincide with another, which raises A: see --explain",
        )
