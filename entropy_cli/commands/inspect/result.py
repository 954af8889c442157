"""The result of `inspect`, and its JSON. Imports no torch.

The fields' names are the keys of the JSON; `Inspection` is the top level.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from entropy_cli import __version__

if TYPE_CHECKING:
    from entropy_cli.entropy.codebook_statistics import CodebookStatistics

SCHEMA = "entropy-cli/inspect"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class File:
    """The file or files of a checkpoint."""

    path: str  # as given
    files: list[dict[str, Any]]  # that hold the weights: `name` and `bytes` of each
    bytes: int  # of all files
    formats: Sequence[str]  # "safetensors", "torch-zip" or "torch-legacy" (before torch 1.6)
    wrapper: str  # keys that lead to the state dict, with dots between; "" for the top
    prefix: str  # of all names there, left off below
    copies: Sequence[str]  # of the weights: "raw", "ema" (averaged over the training)
    weights: str  # the copy that is used
    weights_why: str
    classes: Sequence[str]  # Python classes that the file names and that were not imported
    ignored: Sequence[str]  # other contents of the file
    dtypes: dict[str, int]  # number of tensors of each
    sha256: str | None  # of the whole file, with --full


@dataclass(frozen=True)
class Encoder:
    """Sizes of the encoder, from its shapes."""

    kind: str  # "convolutional" or "transformer"
    widths: list[int]  # channels of each level, finest first; the width of a transformer
    blocks: list[int]  # on each level; layers of a transformer
    attention: list[bool]  # whether each level has attention
    middle_blocks: int  # after the last level
    middle_attention: bool
    downsampling: int  # pixels on the side of one latent, or of a transformer's patch


@dataclass(frozen=True)
class Scale:
    """A scale: its name, tokens per image, side of its square grid or null, and number of codes."""

    name: str
    tokens: int
    patch_num: int | None
    codes: int


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer that `estimate` would build from the checkpoint."""

    image_size: int | None  # pixels on a side
    scales: list[Scale]  # in order
    tokens: int  # per image
    vocab_size: int  # at the scale that has most
    bits: int | None  # of a code, where codes are bits and there is no codebook
    latent_dim: int
    rule: str  # how a latent's code is found
    temperature: float | str  # the default of the headline; "auto" is fitted to the images
    temperatures: list[float | str]  # all defaults
    labels: str  # that models on its tokens are trained on: hard, soft or unknown
    temperature_source: str
    preprocess: str  # how images are resized and cropped
    config: list[str]  # the settings above that come from the config.json beside the checkpoint
    notes: list[str]  # warnings about this checkpoint


@dataclass(frozen=True)
class Generator:
    """The generator that `evaluate --model` would build from the checkpoint."""

    family: str
    words: str  # what it is, for people
    why: list[str]  # the weights that identify it
    wrapper: str  # keys that lead to its state dict, with dots between; "" for the top
    image_size: int | None  # pixels on a side; null if it is the tokenizer's
    patch_nums: list[int]  # side of each scale's grid; empty if nothing shows it
    tokens: int  # per image
    vocab_size: int
    latent_dim: int | None  # of what it takes from earlier scales; null if it takes tokens only
    classes: int
    null_class: int | None  # the label of "no class", null without one
    parameters: int
    width: int
    depth: int
    heads: int
    trained_in: str  # precision of its products
    attention: str  # in words
    rule: str | None  # of its tokenizer, if a file says it
    tokenizers: str  # that fit it, in words
    notes: list[str]


@dataclass(frozen=True)
class Part:
    """A part of the weights; what their values show is null without --full."""

    name: str  # a key of `tokenizers.names.PARTS`
    makes_tokens: bool  # whether tokens depend on it; other parts are read with --full only
    tensors: int
    numbers: int
    bytes: int
    nan: int | None = None
    infinite: int | None = None
    largest: float | None = None  # magnitude of a finite element
    bad: list[str] | None = None  # names of tensors with NaN or infinity
    unread: dict[str, str] | None = None  # names of tensors that can't be read, with the reason


@dataclass(frozen=True)
class Counts:
    """Codebook usage in training, as stored in the checkpoint; not that of your images."""

    tensor: str  # that holds it
    meaning: str
    scale: int | None  # index of the scale, null for all scales together
    codes: int
    never: int | None  # codes never chosen; null if nothing was counted, like the next two
    rare: int | None  # codes chosen less than 1 % as often as on average
    top_share: float | None  # of the code chosen most often


@dataclass(frozen=True)
class Codebook:
    """A codebook."""

    tensor: str  # that holds it
    padding: int  # rows at its end that are not codes
    statistics: "CodebookStatistics | None"  # null with a problem
    counts: list[Counts]
    problem: str | None  # why it can't be read


@dataclass(frozen=True)
class Inspection:
    """A description of a checkpoint; the JSON begins with `schema`, `schema_version`, `tool_version`."""

    family: str | None  # of the tokenizer; null if it is unknown or ambiguous, or there is none
    why: list[str]  # the weights that identify it, or the option that set it
    doubts: list[str]  # reasons against the family set by --family
    candidates: list[str]  # the families that fit if there are several, the nearest if none fits
    against: dict[str, list[str]]  # of each other family, the keys that are missing or conflict with it
    # Why `estimate` would refuse the checkpoint, or `evaluate --model` one without a tokenizer; null if
    # nothing is known.
    problem: str | None
    # Whether encoder and quantiser were built from all weights (--full), not from names and codes alone.
    weights_checked: bool
    file: File
    tokenizer: Tokenizer | None
    generator: Generator | None  # what the file holds in place of a tokenizer, or beside one
    encoder: Encoder | None
    parts: list[Part]  # of the copy of the weights that is used
    codebooks: list[Codebook]  # empty if codes are bits

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
