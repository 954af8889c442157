"""A model's loss, from a result of `entropy-cli loss`, set beside the rungs of a ladder."""

from dataclasses import dataclass
from pathlib import Path

from entropy_cli.core.documents import from_json
from entropy_cli.core.errors import ResultError
from entropy_cli.core.reading import JSON_BYTES, parse_json, read_stream
from entropy_cli.entropy.ladder.ladder import Ladder, ModelLoss
from entropy_cli.results.floors import RungLimit, beside_rungs
from entropy_cli.results.schema import Result


@dataclass(frozen=True)
class _Scale:
    patch_num: int


@dataclass(frozen=True)
class LossDocument:
    """The part of a result of `loss` that is compared."""

    vocab_size: int
    rows: int
    tokens: int
    ignored: int
    cross_entropy_with: str
    cross_entropy: float
    ci95: tuple[float, float] | None
    scales: list[_Scale]


def read_model_loss(path: Path, result: Result) -> LossDocument:
    """Read a result of `loss` on the hard tokens of the same tokenizer.

    Raises:
        ResultError: it can't be read, is no such result, or is of other tokens.
    """
    try:
        content = parse_json(read_stream(path, JSON_BYTES))
        if not isinstance(content, dict) or content.get("schema") != "entropy-cli/loss":
            raise ValueError("not a result of entropy-cli loss --json")
        found = from_json(content, LossDocument, unknown=True)
    except OSError as error:
        raise ResultError(f"{path}: can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise ResultError(f"{path}: {error}. Give --model the JSON of `loss`.") from error
    tokens = sum(scale.tokens for scale in result.scales)
    sides = [scale.patch_num for scale in result.scales]
    number = found.tokens + found.ignored
    wanted = (
        f"expected {result.tokenizer.vocab_size} codes and {tokens} tokens an image as in the result"
    )
    if found.cross_entropy_with != "labels":
        raise ResultError(
            f"{path}: is of soft labels, the ladder of hard ones. Give loss --labels alone."
        )
    if found.vocab_size != result.tokenizer.vocab_size or number != found.rows * tokens:
        raise ResultError(
            f"{path}: got {found.vocab_size} codes and {number / max(1, found.rows):g} tokens a row, "
            f"{wanted}. Give the loss of a model of this tokenizer."
        )
    if found.scales and [scale.patch_num for scale in found.scales] != sides:
        raise ResultError(f"{path}: has other scales than the result. Give --patch-nums as of it.")
    return found


def beside_ladder(loss: LossDocument, source: Path, ladder: Ladder) -> ModelLoss:
    """Return a model's loss and where it lies on the ladder."""
    means = [(rung.id, rung.sees, rung.average.token_weighted) for rung in ladder.rungs[1:]]
    rungs = [RungLimit(name, sees, bound.upper95) for name, sees, bound in means]
    half = 0.0 if loss.ci95 is None else (loss.ci95[1] - loss.ci95[0]) / 2
    is_above, clause = beside_rungs(loss.cross_entropy, half, rungs)
    below = rungs[0].upper95 - loss.cross_entropy
    if not is_above and len(rungs) > 1:
        clause = f"{below:.2f} nats below the {rungs[0].id} rung, {clause}"
    return ModelLoss(str(source.resolve()), loss.cross_entropy, clause)
