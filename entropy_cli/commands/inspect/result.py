"""What an inspection found, and as JSON. Imports no torch.

The fields' names are the keys of the JSON; `Inspection` is the whole of it.
"""

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from entropy_cli import __version__

if TYPE_CHECKING:
    from entropy_cli.entropy.codebook_statistics import CodebookStatistics

SCHEMA = "entropy-cli/inspect"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class File:
    """The file or files.

    Attributes:
        path: as given.
        files: those that the weights are in, each `name` and `bytes`.
        bytes: of all of them.
        formats: "safetensors", "torch-zip" or "torch-legacy" (torch.save before torch 1.6).
        wrapper: the keys that lead to the state dict in the file, with dots between; "" for the top.
        prefix: what stands before all names there, and is left off below.
        copies: of the weights that there are: "raw", "ema" (averaged over the training).
        weights: the copy that is used.
        weights_why: why that one.
        classes: Python classes that the file names and that were not imported.
        ignored: what else the file holds.
        dtypes: types of numbers, with the tensors of each.
        sha256: of the whole file, with --full.
    """

    path: str
    files: list[dict[str, Any]]
    bytes: int
    formats: list[str]
    wrapper: str
    prefix: str
    copies: list[str]
    weights: str
    weights_why: str
    classes: list[str]
    ignored: list[str]
    dtypes: dict[str, int]
    sha256: str | None


@dataclass(frozen=True)
class Encoder:
    """Sizes of the encoder, as its shapes tell them.

    Attributes:
        kind: "convolutional" or "transformer".
        widths: channels of each level, finest first; the width of a transformer.
        blocks: on each level; layers of a transformer.
        attention: on each level, whether it has any.
        middle_blocks: after the last level.
        middle_attention: whether there is any among them.
        downsampling: pixels on the side of one latent, or of a transformer's patch.
    """

    kind: str
    widths: list[int]
    blocks: list[int]
    attention: list[bool]
    middle_blocks: int
    middle_attention: bool
    downsampling: int


@dataclass(frozen=True)
class Scale:
    """A scale: its name, its tokens in an image, the side of a square grid or null, its codes."""

    name: str
    tokens: int
    patch_num: int | None
    codes: int


@dataclass(frozen=True)
class Tokenizer:
    """What `estimate` would make of the checkpoint.

    Attributes:
        image_size: pixels on a side.
        scales: in order.
        tokens: of one image.
        vocab_size: codes, of the scale that has most.
        bits: of a code, where codes are bits and there is no codebook.
        latent_dim: numbers in a latent.
        rule: how a latent's code is found.
        temperature: the default; "auto" is fitted to the images.
        temperature_source: where it is from.
        preprocess: what is done to a picture.
        config: what of this config.json beside the checkpoint decided.
        notes: what to know of this checkpoint.
    """

    image_size: int | None
    scales: list[Scale]
    tokens: int
    vocab_size: int
    bits: int | None
    latent_dim: int
    rule: str
    temperature: float | str
    temperature_source: str
    preprocess: str
    config: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Part:
    """A part of the weights.

    Attributes:
        name: "encoder", "quant_conv" (convolution between encoder and codes), "quantiser", "decoder",
            "post_quant_conv" (between codes and decoder), "loss" (discriminator too) or "other".
        makes_tokens: whether tokens depend on it; the rest is not read but for --full.
        tensors, numbers, bytes: how many.
        nan, infinite: numbers that are, with --full.
        largest: magnitude of the largest finite number, with --full.
        bad: names of tensors with NaN or infinity, with --full.
        unread: names of tensors that can't be read, with the reason, with --full.
    """

    name: str
    makes_tokens: bool
    tensors: int
    numbers: int
    bytes: int
    nan: int | None = None
    infinite: int | None = None
    largest: float | None = None
    bad: list[str] | None = None
    unread: dict[str, str] | None = None


@dataclass(frozen=True)
class Counts:
    """Usage of the codes as the checkpoint itself carries it; of its training, not of your images.

    Attributes:
        tensor: the weight that holds it.
        meaning: what it holds.
        scale: which, if it counts for each scale.
        codes: that it counts.
        never: codes never chosen; null if nothing was counted, as the next two.
        rare: chosen less than 1 % as often as on average.
        top_share: of the code chosen most often.
    """

    tensor: str
    meaning: str
    scale: int | None
    codes: int
    never: int | None
    rare: int | None
    top_share: float | None


@dataclass(frozen=True)
class Codebook:
    """A table of codes.

    Attributes:
        tensor: the weight that holds it.
        padding: rows at its end that are no codes.
        statistics: see `CodebookStatistics`; null with a `problem`.
        counts: usage in training.
        problem: why it can't be read.
    """

    tensor: str
    padding: int
    statistics: "CodebookStatistics | None"
    counts: list[Counts]
    problem: str | None


@dataclass(frozen=True)
class Inspection:
    """All of it; `schema`, `schema_version` and `tool_version` come before.

    Attributes:
        family: of the tokenizer, null if it isn't clear.
        why: the weights that tell it, or who decided.
        doubts: what speaks against the family that was asked for.
        candidates: families that fit if there are several, the nearest if there are none.
        against: of each other family, what the checkpoint lacks for it or has that it has not.
        problem: why `estimate` would refuse the checkpoint, null if nothing is known.
        weights_checked: whether encoder and quantiser were built from the weights themselves (with
            --full), not from names, shapes and codes alone.
        tokenizer, encoder: null if they can't be told.
        parts: of the copy of the weights that is used, those that are there.
        codebooks: none if codes are bits.
    """

    family: str | None
    why: list[str]
    doubts: list[str]
    candidates: list[str]
    against: dict[str, list[str]]
    problem: str | None
    weights_checked: bool
    file: File
    tokenizer: Tokenizer | None
    encoder: Encoder | None
    parts: list[Part]
    codebooks: list[Codebook]

    def to_json(self) -> str:
        """As JSON text, with null for what is no number."""
        content = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "tool_version": __version__,
            **asdict(self),
        }
        return json.dumps(_finite(content), allow_nan=False, indent=1)


def _finite(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
