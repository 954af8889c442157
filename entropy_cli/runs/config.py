"""The options of `estimate` as a value."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from entropy_cli.entropy.codebook import Rule
from entropy_cli.entropy.quantity import Cluster, TemperatureChoice, TokenPath
from entropy_cli.streaming.loop import SAVE_EVERY_S
from entropy_cli.tokenizers.compiled import Compile
from entropy_cli.tokenizers.latents import Channels
from entropy_cli.tokenizers.precision import Precision
from entropy_cli.tokenizers.settings import TokenizerSettings, Weights


@dataclass(frozen=True)
class GivenLatents:
    """Latents that were made elsewhere, in place of images and a checkpoint.

    Attributes:
        latents: FILE or FILE:KEY[,KEY...], a tensor for each scale.
        codebook: as latents, one codebook for all scales or one for each; None for bits and levels.
        levels: number of levels of each dimension, for the rule "levels".
        channels: where the latents' channels are; None where they fit the codes.
    """

    latents: str
    rule: Rule
    codebook: str | None = None
    levels: tuple[int, ...] | None = None
    channels: Channels | None = None


@dataclass(frozen=True)
class SavedTokens:
    """Tokens that an estimate saved, in place of images: nothing is encoded.

    Attributes:
        tokens: the file of tokens, with the images' paths beside it.
        result: the result of the same estimate.
    """

    tokens: Path
    result: Path


@dataclass(frozen=True)
class ModelChoice:
    """A generator to evaluate on the tokens.

    Attributes:
        checkpoint: its file or folder.
        heads: number of attention heads, where its file does not say.
        weights: which copy of its weights; None for the raw one.
        labels: "auto", "none", or a file of classes.
        label_check: number of first images that are also given the null class; None for as many as the
            device computes in little time.
        given: tokens that were saved; None encodes images.
        per_image: where the loss of each image is written; None writes none.
    """

    checkpoint: Path
    heads: int | None = None
    weights: Weights | None = None
    labels: Literal["auto", "none"] | Path = "auto"
    label_check: int | None = None
    given: SavedTokens | None = None
    per_image: Path | None = None


@dataclass(frozen=True)
class EstimateConfig:
    """The inputs and settings of an estimate; None where the program chooses.

    Attributes:
        data: folder of images or of tars; None with latents.
        checkpoint: file or folder of the tokenizer; None with latents.
        cluster: what the groups of images keep together, that errors are computed from.
        temperatures: divisors of the squared distance, or "auto", the headline first.
        temperature_from: a result whose temperatures are used.
        path: the tokens that are counted, and subtracted before the next scale: nearest codes or drawn.
        precision: of the encoder.
        compile: whether it is compiled; auto where that pays.
        target: half-width in nats at which to stop before all images are read.
        shard: (I, N) reads only the I-th of N parts of the images.
        state: where the state is kept; None keeps it in the cache folder until the run ends well.
        tokens: where tokens are written; None writes none.
        ladder: whether the result gets the ladder of the tokens; a shard keeps them for the merge.
        model: a generator to evaluate on the tokens, in the same pass; None for an estimate alone.
    """

    data: Path | None = None
    checkpoint: Path | None = None
    latents: GivenLatents | None = None
    split: str = "auto"
    limit: int | None = None
    seed: int = 0
    cluster: Cluster = "image"
    family: str = "auto"
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    temperatures: tuple[TemperatureChoice, ...] | None = None
    temperature_from: Path | None = None
    path: TokenPath = "hard"
    precision: Precision | None = None
    compile: Compile = "auto"
    target: float | None = None
    shard: tuple[int, int] | None = None
    device: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    state: Path | None = None
    tokens: Path | None = None
    ladder: bool = False
    model: ModelChoice | None = None
    save_every_s: float = SAVE_EVERY_S
    fail_at_first: bool = False
    command: str = ""
