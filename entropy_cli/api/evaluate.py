"""The evaluation of a model as a function, for models that are Python callables."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from entropy_cli.api.arrays import Array, describe, shown, to_tensor
from entropy_cli.api.batches import checked_temperatures
from entropy_cli.api.callables import Codes, Encode
from entropy_cli.api.passes import PrecisionChoice, open_pass
from entropy_cli.api.python_words import naming_parameters
from entropy_cli.core.errors import EntropyCliError, ShapeError
from entropy_cli.core.files import path_argument
from entropy_cli.entropy.codebook import Rule
from entropy_cli.entropy.quantity import Cluster, TemperatureChoice
from entropy_cli.generators.base import GeneratorSpec
from entropy_cli.images.image_set import ImageSet
from entropy_cli.images.labels import ClassLabels, find_labels
from entropy_cli.results.evaluation import Evaluation
from entropy_cli.runs.model import LABEL_CHECK, Model
from entropy_cli.tokenizers.base import Tokenizer, TokenizerSpec
from entropy_cli.tokenizers.compiled import Compile
from entropy_cli.tokenizers.latents import Channels
from entropy_cli.tokenizers.precision import Precision, matmul_precision

# Takes tokens (B, L) and classes (B,), int64, and returns logits (B, L, V).
Predict: TypeAlias = Callable[[Tensor, Tensor], Array]
ROUNDING = 1e-2  # of logits, relative, that 16 bits may leave
MOST_CLASSES = 2**31


class CallableGenerator:
    """A Python callable as a generator, whose last layer has been applied; see `generators.base`.

    On the first images it is asked again with other tokens at each of the `changed` places.
    """

    def __init__(self, predict: Predict, spec: GeneratorSpec, changed: Sequence[int]) -> None:
        self.predict, self.spec, self.changed = predict, spec, changed

    def to(self, device: torch.device, precision: Precision) -> "CallableGenerator":
        """Return the same: a callable computes where its own weights are, in its own precision."""
        return self

    def hidden(self, idx_BL: Tensor, label_B: Tensor, inputs_BMC: Tensor | None) -> Tensor:
        """Return the logits_BLV that the callable gives.

        Raises:
            ShapeError: it returns something else.
            EntropyCliError: logits depend on the token that they predict, or on later ones.
        """
        logits_BLV = self._logits(idx_BL, label_B)
        places, self.changed = self.changed, ()
        for place in places:
            self._check(place, idx_BL, label_B, logits_BLV)
        return logits_BLV.to(idx_BL.device, torch.float32)

    def _logits(self, idx_BL: Tensor, label_B: Tensor) -> Tensor:
        given = self.predict(idx_BL, label_B)
        logits_BLV = to_tensor("model", given) if isinstance(given, Array) else None
        expected = (*idx_BL.shape, self.spec.vocab_size)
        is_float = logits_BLV is not None and logits_BLV.is_floating_point()
        if logits_BLV is None or not is_float or tuple(logits_BLV.shape) != expected:
            raise ShapeError(
                f"model: got {describe(given)}, expected a floating-point tensor {expected}: for each "
                "token the logits of all codes, the i-th those of token i."
            )
        return logits_BLV

    def _check(self, place: int, idx_BL: Tensor, label_B: Tensor, logits_BLV: Tensor) -> None:
        """Raise EntropyCliError if the logits up to a place depend on the token there."""
        other_BL = idx_BL.clone()
        other_BL[:, place] = (other_BL[:, place] + 1) % self.spec.vocab_size
        # Codes that can't be there may have logits of minus infinity.
        hidden_BLV = ~logits_BLV.isfinite()
        changed_BLV = self._logits(other_BL, label_B) - logits_BLV
        changed_L = changed_BLV.masked_fill(hidden_BLV, 0).abs().amax((0, 2))[: place + 1]
        most = logits_BLV.masked_fill(hidden_BLV, 0).abs().max()
        places = (changed_L > ROUNDING * most).nonzero().flatten().tolist()
        if places:
            raise EntropyCliError(
                f"model: its logits of token {places[-1]} change when token {place} does: it sees what "
                "it is to predict or what comes later, or drops out at random. Shift its logits, mask "
                "its attention, and call model.eval()."
            )

    def logits(self, hidden_NC: Tensor) -> Tensor:
        """Return them as they are."""
        return hidden_NC


@naming_parameters()
@torch.inference_mode()
@matmul_precision(tf32=False)
def evaluate(  # noqa: PLR0913 - a parameter for each option
    images: str | Path | Iterable[Array],
    tokenizer: Tokenizer | Encode,
    model: Predict,
    *,
    labels: str | Path | Sequence[int] | Array = "auto",
    classes: int = 1000,
    null_class: int | None = None,
    label_check: int = LABEL_CHECK["cpu"],
    codebook: Array | Sequence[Array] | None = None,
    rule: Rule | None = None,
    levels: Sequence[int] | None = None,
    channels: Channels | None = None,
    temperature: TemperatureChoice | Sequence[TemperatureChoice] | None = None,
    device: str | torch.device = "auto",
    precision: PrecisionChoice = "auto",
    workers: int | None = None,
    compile: Compile = "auto",
    cluster: Cluster = "image",
) -> Evaluation:
    """Evaluate a model's cross-entropy on images, beside the entropies of its tokens, in one pass.

    Args:
        images: as for `estimate`.
        tokenizer: as for `estimate`.
        model: called with tokens (B, L), scale after scale in raster order, and classes (B,), int64 on
            the device, without gradients; returns logits (B, L, V), of which the i-th are those of
            token i: it must not see that token or later ones. A network of yours should be in
            evaluation mode and drop no classes.
        labels: the class of each image in the order of the batches, whole numbers; for a folder "auto",
            "none" or a file, as the command's --labels.
        classes: number of classes of the model, without its null class.
        null_class: the label that stands for no class, None if the model has none.
        label_check: number of first images that are also given the null class.
        codebook: of a tokenizer that is a callable, as are the next three; see `estimate`.
        rule: see `estimate`.
        levels: see `estimate`.
        channels: see `estimate`.
        temperature: see `estimate`.
        device: where tokens are computed and losses added up; the model's own device is its affair.
        precision: of the tokenizer, see `estimate`.
        workers: see `estimate`.
        compile: see `estimate`.
        cluster: see `estimate`.

    Returns:
        What `entropy-cli evaluate` writes: `result.average.token_weighted.cross_entropy` has value, se
        and ci95 in nats per token; `result.estimate` is the result of `estimate`; `result.write(path)`
        saves both.

    Raises:
        EntropyCliError: as for `estimate`; or labels are not those of the images, or the model returns
            something else than logits.
    """
    if not callable(model):
        raise EntropyCliError(f"model: got {shown(model)}, expected a function of tokens and labels.")
    for name, value, least in (("classes", classes, 1), ("label_check", label_check, 0)):
        if type(value) is not int or not least <= value <= MOST_CLASSES:
            raise EntropyCliError(f"{name} {shown(value)}: expected a whole number from {least}.")
    if null_class is not None and (type(null_class) is not int or not 0 <= null_class <= MOST_CLASSES):
        raise EntropyCliError(f"null_class {shown(null_class)}: expected a whole number, or None.")
    temperatures = checked_temperatures(temperature)
    codes = Codes(codebook, rule, levels, channels)
    opened = open_pass(images, tokenizer, codes, device, precision, workers, compile, cluster)
    found = _labels(labels, opened.found, classes, null_class)
    spec = _spec(model, opened.tokenizer.spec, classes, null_class)
    checks = null_class is not None and found.source != "none"
    generator = CallableGenerator(model, spec, _changed(opened.tokenizer.spec))
    checked = label_check if checks else 0
    given = Model(generator, found, "fp32", checked, None, {"model": None})
    result = opened.run(temperatures, model=given)
    assert isinstance(result, Evaluation)
    return result


def _labels(
    labels: str | Path | Sequence[int] | Array,
    found: ImageSet | None,
    classes: int,
    null_class: int | None,
) -> ClassLabels:
    """Return the classes of the images of a folder, or those that were given for batches."""
    if isinstance(labels, (str, Path)):
        if found is None:
            raise EntropyCliError(
                f"labels {labels}: is for a folder. Give the class of each image, in the order of the "
                "batches."
            )
        source: Literal["auto", "none"] | Path = path_argument("labels", labels)
        if labels in ("auto", "none"):
            source = "auto" if labels == "auto" else "none"
        if source == "none" and null_class is None:
            raise EntropyCliError("labels none: give the model's label for no class as null_class.")
        names = (found.name(index) for index in range(len(found)))
        return find_labels(names, source, classes, null_class, found.label_of)
    if found is not None:
        raise EntropyCliError('labels: for a folder give "auto", "none" or a file of classes.')
    try:
        index_N = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    except (TypeError, ValueError) as error:
        raise EntropyCliError(f"labels {shown(labels)}: expected a whole number an image.") from error
    allowed = {null_class} if null_class is not None else set()
    if index_N.ndim != 1 or not np.issubdtype(index_N.dtype, np.integer):
        raise ShapeError(f"labels: got {shown(labels)}, expected one whole number for each image.")
    wrong_N = index_N[(index_N < 0) | (index_N >= classes)]
    if not {*wrong_N.tolist()} <= allowed:
        raise EntropyCliError(
            f"labels: got {wrong_N[0]}, expected 0 to {classes - 1}, or the null class. Give the number "
            "of the model's classes as classes."
        )
    return ClassLabels(index_N.astype(np.int64), "given", len(np.unique(index_N)))


def _changed(tokenizer: TokenizerSpec) -> list[int]:
    """Return places of tokens: the last of all, and the last of a scale before, or one in the middle."""
    *before, last = (scale.tokens for scale in tokenizer.scales)
    return sorted({sum(before) + last - 1, sum(before) - 1 if before else (last - 1) // 2})


def _spec(
    predict: Predict, tokenizer: TokenizerSpec, classes: int, null_class: int | None
) -> GeneratorSpec:
    """Describe a callable; what it does not tell is 0."""
    weights = list(predict.parameters()) if isinstance(predict, nn.Module) else []
    return GeneratorSpec(
        family="callable",
        vocab_size=tokenizer.vocab_size,
        latent_dim=None,
        patch_nums=(),
        image_size=None,
        classes=classes,
        null_class=null_class,
        parameters=sum(weight.numel() for weight in weights),
        width=0,
        depth=0,
        heads=0,
        trained_in="fp32",
        attention="",
    )
