"""Checks of a loss against its floor, the ceilings of its tokens, and ln V at the start of a run.

They take numbers, whatever they were read from. Imports no torch.
"""

import math
from typing import NamedTuple

from entropy_cli.entropy.quantity import Labels
from entropy_cli.results.findings import Finding, Severity, difference
from entropy_cli.results.floors import Level, beside_rungs

AT_END = " at the end"
UNITS_OPTION = " (--log-units)"  # of the command; Python is told without it
NEAR = 0.02  # nats: losses this close count as equal if their error is not known
SUM_TOLERANCE = 0.03  # relative: the first logged value is often a mean over some steps
MOST_SUMMED = 64  # accumulation steps
MUCH_ABOVE = 1.0  # nats above ln V: logits of unit variance are half a nat above
ACCUMULATION = (
    "Divide each micro-batch's loss by the number of accumulation steps, or judge by the validation "
    "loss. In Hugging Face's Trainer, whose loss is CE x tokens / n with n = num_items_in_batch, the "
    "model takes **kwargs but returns a mean: divide the sum of its token losses by num_items_in_batch, "
    "or set accepts_loss_kwargs = False on the model"
)


def below_floor(
    value: float, level: Level, labels: Labels, what: str = "loss", where: str = ""
) -> Finding:
    """Say that a loss is below the assignment entropy, which is a floor of soft labels only.

    `where` says which of its values it is, such as " (median of the last tenth)".
    """
    loss, floor = f"{value:.4f}", f"{level.floor:.4f}"
    below = f"{what} of {loss}{where} lies {difference(floor, loss)} nats below"
    if labels == "hard":
        message = (
            f"{below} the assignment entropy A = {floor}, which is no floor of hard "
            "tokens: CE - A may be negative. "
        )
        ladder = "" if level.rungs else " (run estimate with --ladder, on held-out images)"
        message += f"Judge the loss by the ladder's ceilings{ladder}."
        return Finding("below_floor", "info", message)
    causes = (
        "check that the floor has the temperature, path, tokenizer and scale of this loss, that it is "
        f"in nats and not in bits{UNITS_OPTION}, and that the training set is not memorised."
    )
    if labels == "unknown":
        causes = f"if the labels are the nearest codes, it is no floor: judge by a ladder. Else {causes}"
    message = (
        f"{below} the floor {floor}, which is impossible in expectation for labels that "
        f"are soft or drawn from the soft assignment. {causes[0].upper()}{causes[1:]}"
    )
    return Finding("below_floor", "warning", message)


def above_unigram(value: float, ceiling: float, what: str = "loss", where: str = AT_END) -> Finding:
    """Say that a loss is above the upper limit of the unigram entropy."""
    loss, most = f"{value:.4f}", f"{ceiling:.4f}"
    message = (
        f"{what} of {loss}{where} is at least {difference(loss, most)} nats above the unigram "
        f"entropy, at most {most}, which the code frequencies of other images reach. Unless the "
        "run has hardly begun, check that the labels are of this tokenizer and in its order, and that "
        "the model learns at all."
    )
    return Finding("above_unigram", "warning", message)


def beside_ladder(
    value: float, level: Level, margin: float, what: str = "loss", where: str = AT_END
) -> Finding:
    """Set a loss beside the rungs of the ladder of hard tokens, of which there is at least one."""
    is_above, clause = beside_rungs(value, margin, level.rungs)
    beside = f"{what} of {value:.4f}{where} is {clause}"
    if is_above:
        advice = (
            "Unless the run has hardly begun, check that the labels are of this tokenizer and in its "
            "order, and that the model gets its context"
        )
        return Finding("above_rung", "warning", f"{beside}. {advice}.")
    advice = "How far below its rungs a loss can go, the ladder does not say: compare with other models"
    return Finding("ladder", "info", f"{beside}. {advice}.")


class Start(NamedTuple):
    """What the first loss of a run is, beside ln V."""

    is_expected: bool  # within `NEAR` of ln V, or a mean over some steps that is lower
    times: int | None  # the number of losses that it is the sum of, if it is a multiple of ln V


def compare_start(initial: float, vocab_size: int, *, is_untrained: bool) -> Start:
    """Compare the first loss of a run with ln V, the loss of an untrained model.

    Args:
        initial: the first value in nats per token.
        vocab_size: V.
        is_untrained: whether it is of the model before any step, else the run may have fallen already.
    """
    uniform = math.log(vocab_size)
    times = round(initial / uniform)
    if 2 <= times <= MOST_SUMMED and abs(initial / (times * uniform) - 1) < SUM_TOLERANCE:
        return Start(is_expected=False, times=times)
    lowest = uniform - NEAR if is_untrained else 0.0
    return Start(is_expected=lowest < initial < uniform + MUCH_ABOVE, times=None)


def summed_loss(initial: float, vocab_size: int, times: int) -> Finding:
    """Say that a loss starts at a multiple of ln V."""
    uniform = math.log(vocab_size)
    message = (
        f"starts at {initial:.3f}, about {times} times ln {vocab_size} = {uniform:.3f}, the loss of an "
        f"untrained model: probably the sum over {times} accumulation steps or processes, so no floor "
        f"is set against it. {ACCUMULATION}."
    )
    return Finding("summed_loss", "warning", message)


def start_is_not_ln_v(initial: float, vocab_size: int) -> Finding:
    """Say that an untrained model does not have the loss of a uniform guess."""
    uniform = math.log(vocab_size)
    start, expected = f"{initial:.3f}", f"{uniform:.3f}"
    if initial > uniform:
        advice = (
            "Check that the labels are codes of this tokenizer, how the loss is averaged (Hugging "
            "Face's Trainer logs CE x tokens / n with n = num_items_in_batch), and the initialisation "
            "of the last layer"
        )
        side = "above"
    else:
        advice = (
            "Nothing to do if the run resumes another or starts from trained weights. Else check for "
            f"another codebook size, bits per token{UNITS_OPTION}, or a loss averaged over padded tokens"
        )
        side = "below"
    message = (
        f"starts at {start}, {difference(start, expected).lstrip('-')} {side} ln {vocab_size} = "
        f"{expected}, the loss of an untrained model. {advice}."
    )
    severity: Severity = "warning" if initial > uniform else "info"
    return Finding("start_is_not_ln_v", severity, message)
