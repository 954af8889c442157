"""The result of `inspect`, and its JSON. Imports no torch.

The fields' names are the keys of the JSON; `Inspection` is the top level.
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
    """The file or files of a checkpoint.

    Attributes:
        path: as given.
        files: the files that hold the weights, `name` and `bytes` of each.
        bytes: total size.
        formats: "safetensors", "torch-zip" or "torch-legacy" (torch.save before torch 1.6).
        wrapper: the keys that lead to the state dict in the file, with dots between; "" for the top.
        prefix: the prefix of all names there, left off below.
        copies: the copies of the weights: "raw", "ema" (averaged over the training).
        weights: the copy that is used.
        weights_why: why that copy is used.
        classes: Python classes that the file names and that were not imported.
        ignored: other contents of the file.
        dtypes: number of tensors of each dtype.
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
    """Sizes of the encoder, from its shapes.

    Attributes:
        kind: "convolutional" or "transformer".
        widths: channels of each level, finest first; the width of a transformer.
        blocks: on each level; layers of a transformer.
        attention: whether each level has attention.
        middle_blocks: blocks after the last level.
        middle_attention: whether there is attention among them.
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
    """A scale: its name, tokens per image, side of its square grid or null, and number of codes."""

    name: str
    tokens: int
    patch_num: int | None
    codes: int


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer that `estimate` would build from the checkpoint.

    Attributes:
        image_size: pixels on a side.
        scales: in order.
        tokens: per image.
        vocab_size: number of codes, at the scale that has most.
        bits: bits of a code, where codes are bits and there is no codebook.
        latent_dim: dimensions of a latent.
        rule: how a latent's code is found.
        temperature: the default; "auto" is fitted to the images.
        temperature_source: source of the default.
        preprocess: how images are resized and cropped.
        config: the settings above that come from the config.json beside the checkpoint.
        notes: warnings about this checkpoint.
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
        makes_tokens: whether tokens depend on it; other parts are read with --full only.
        tensors, numbers, bytes: number of tensors, elements and bytes.
        nan, infinite: number of such elements, with --full.
        largest: magnitude of the largest finite element, with --full.
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
    """Codebook usage in training, as stored in the checkpoint; not that of your images.

    Attributes:
        tensor: name of the tensor that holds it.
        meaning: description of its contents.
        scale: index of the scale, null for all scales together.
        codes: number of codes counted.
        never: codes never chosen; null if nothing was counted, like the next two.
        rare: codes chosen less than 1 % as often as on average.
        top_share: share of the code chosen most often.
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
    """A codebook.

    Attributes:
        tensor: name of the tensor that holds it.
        padding: rows at its end that are not codes.
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
    """A description of a checkpoint; the JSON begins with `schema`, `schema_version`, `tool_version`.

    Attributes:
        family: of the tokenizer, null if it is unknown or ambiguous.
        why: the weights that identify it, or the option that set it.
        doubts: reasons against the family set by --family.
        candidates: the families that fit if there are several, the nearest if there are none.
        against: for each other family, the keys that are missing or that conflict with it.
        problem: why `estimate` would refuse the checkpoint, null if nothing is known.
        weights_checked: whether encoder and quantiser were built from the weights themselves (with
            --full), not from names, shapes and codes alone.
        tokenizer, encoder: null if unknown.
        parts: the parts of the copy of the weights that is used.
        codebooks: empty if codes are bits.
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
        """Return the inspection as JSON text, with null for NaN and infinity."""
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
