"""Tokenizer families, and finding the one that a checkpoint belongs to.

To add one, write a module in `families/` with a subclass of `Family`, and add its row to FAMILIES.
Detection, the commands and the tests work from FAMILIES; the tests also need a tiny checkpoint of the
layout, one row in tests/family_checkpoints.py.
"""

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from entropy_cli.core.errors import CheckpointError
from entropy_cli.core.progress_bars import stage
from entropy_cli.tokenizers.base import Tokenizer, TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint, open_checkpoint
from entropy_cli.tokenizers.checkpoints.states import some
from entropy_cli.tokenizers.families.cosmos import Cosmos
from entropy_cli.tokenizers.families.dall_e import DALLE
from entropy_cli.tokenizers.families.diffusers_vq import DiffusersVQ
from entropy_cli.tokenizers.families.emu3 import Emu3
from entropy_cli.tokenizers.families.flexvar import FlexVAR
from entropy_cli.tokenizers.families.ibq import IBQ
from entropy_cli.tokenizers.families.infinity import Infinity
from entropy_cli.tokenizers.families.llamagen import LlamaGen
from entropy_cli.tokenizers.families.maskbit import MaskBit
from entropy_cli.tokenizers.families.maskgit import MaskGIT
from entropy_cli.tokenizers.families.open_magvit2 import OpenMAGVIT2
from entropy_cli.tokenizers.families.rq_vae import RQVAE
from entropy_cli.tokenizers.families.show_o import ShowO
from entropy_cli.tokenizers.families.titok import TiTok
from entropy_cli.tokenizers.families.var import VAR
from entropy_cli.tokenizers.families.vq_kd import VQKD
from entropy_cli.tokenizers.families.vqgan import VQGAN
from entropy_cli.tokenizers.family import Family
from entropy_cli.tokenizers.settings import TokenizerSettings
from entropy_cli.tokenizers.unsupported import recognise

logger = logging.getLogger(__name__)

FAMILIES: dict[str, Family] = {
    "var": VAR(),
    "vqgan": VQGAN(),
    "llamagen": LlamaGen(),
    "ibq": IBQ(),
    "open-magvit2": OpenMAGVIT2(),
    "rq-vae": RQVAE(),
    "diffusers": DiffusersVQ(),
    "titok": TiTok(),
    "infinity": Infinity(),
    "maskgit": MaskGIT(),
    "maskbit": MaskBit(),
    "show-o": ShowO(),
    "emu3": Emu3(),
    "flexvar": FlexVAR(),
    "dall-e": DALLE(),
    "cosmos": Cosmos(),
    "vq-kd": VQKD(),
}

# Keys of config.json that may contradict the weights.
CODES = ("n_embed", "num_embeddings", "num_vq_embeddings", "codebook_size")
DIMENSIONS = ("embed_dim", "vq_embed_dim", "quantized_embed_dim", "codebook_embed_dim", "token_size")
LEVELS = ("ch_mult", "channel_mult", "channel_multiplier", "encoder_ch_mult", "block_out_channels")
POOLING = ("resample_with_conv", "resamp_with_conv")
STRIDED = re.compile(r"^encoder\..*down(_conv|sample|samplers)\.")
ACTIVATIONS = ("act_fn",)  # hidden_act is that of other parts of a model


@dataclass(frozen=True)
class Found:
    """A checkpoint and the family that it was detected as, or that the user chose.

    Attributes:
        checkpoint: the checkpoint, with the copy of its weights that is used.
        name: the family's name in FAMILIES.
        settings: the caller's settings, filled up from config.json beside the checkpoint.
        notes: what config.json says against the family that the user chose.
    """

    checkpoint: Checkpoint
    name: str
    settings: TokenizerSettings
    notes: tuple[str, ...] = ()

    @property
    def family(self) -> Family:
        """The family."""
        return FAMILIES[self.name]

    @property
    def evidence(self) -> list[str]:
        """The weights that show that the checkpoint is of the family, each with what it is."""
        family, shapes = self.family, self.checkpoint.shapes
        keys = family.IDENTIFYING_KEYS.items()
        found = [f"has {key}: {meaning}" for key, meaning in keys if key in shapes]
        required = family.missing_keys(Checkpoint.of_tensors(self.checkpoint.path, {}))
        return (found or [f"has {key}" for key in required if key in shapes])[:3]

    def describe(self) -> TokenizerSpec:
        """Describe the tokenizer without reading weights."""
        spec = self.family.describe(self.checkpoint, self.settings)
        return replace(spec, notes=(*spec.notes, *self.notes))

    def build(self) -> Tokenizer:
        """Read the weights and return the tokenizer."""
        tokenizer = self.family.build(self.checkpoint, self.settings)
        tokenizer.spec = replace(tokenizer.spec, notes=(*tokenizer.spec.notes, *self.notes))
        return tokenizer


@dataclass(frozen=True)
class Loaded:
    """A tokenizer, the checkpoint, settings and evidence that it was built from."""

    tokenizer: Tokenizer
    checkpoint: Checkpoint
    settings: TokenizerSettings
    evidence: list[str]


def load_tokenizer(
    path: Path,
    family: str = "auto",
    settings: TokenizerSettings | None = None,
    defaults: TokenizerSettings | None = None,
) -> Loaded:
    """Open a checkpoint and build its tokenizer; for the arguments and errors see `find_family`."""
    found = find_family(path, family, settings, defaults)
    with stage(f"building the tokenizer of {path}"):
        tokenizer = found.build()
    found.checkpoint.close()
    logger.debug("%s: family %s: %s", path, found.name, "; ".join(found.evidence))
    return Loaded(tokenizer, found.checkpoint, found.settings, found.evidence)


def find_family(
    path: Path,
    family: str = "auto",
    settings: TokenizerSettings | None = None,
    defaults: TokenizerSettings | None = None,
) -> Found:
    """Open a checkpoint and find its family.

    Args:
        path: the checkpoint.
        family: a name in FAMILIES, or "auto" to detect it from the weights and config.json.
        settings: the caller's choices; the rest comes from config.json beside the checkpoint, then from
            the defaults.
        defaults: what is taken before the family's own defaults.

    Raises:
        CheckpointError: no family or several families fit the checkpoint, config.json contradicts the
            only one that does, or the checkpoint is unusable.
    """
    return match_family(open_checkpoint(path), family, settings, defaults)


def match_family(
    checkpoint: Checkpoint,
    family: str = "auto",
    settings: TokenizerSettings | None = None,
    defaults: TokenizerSettings | None = None,
) -> Found:
    """Find the family of an open checkpoint; for the arguments and errors see `find_family`."""
    config, is_chosen = checkpoint.config, family != "auto"
    if config.broken and not is_chosen:
        raise CheckpointError(
            f"{config.path}: {config.broken}. It may say what the checkpoint is: mend or remove it, or "
            "give --family, and --image-size and --patch-nums where the family's defaults don't fit."
        )
    name = family if is_chosen else detect(checkpoint)
    if missing := FAMILIES[name].missing_keys(checkpoint):
        raise CheckpointError(f"{checkpoint.path}: not of family {name}: lacks {some(missing, 3)}.")
    settings = settings or TokenizerSettings()
    if settings.levels is not None and not FAMILIES[name].TAKES_LEVELS:
        raise CheckpointError(f"--levels: the codes of family {name} are no levels. Leave it out.")
    settings = settings.filled_from(config.settings(settings))
    settings = settings.filled_from(defaults or TokenizerSettings())
    if settings.weights:
        checkpoint = checkpoint.with_weights(settings.weights)
    elif FAMILIES[name].EMA_BY_DEFAULT and "ema" in checkpoint.copies:
        checkpoint = checkpoint.with_weights("ema")
    found = Found(checkpoint, name, settings)
    return _check_config(found, is_chosen=is_chosen) if config.content or config.broken else found


def _check_config(found: Found, *, is_chosen: bool) -> Found:
    """Add what config.json says against the family as notes; raise if the user did not choose it."""
    config, family = found.checkpoint.config, found.family
    reasons = [config.broken] if config.broken else foreign_classes(found.checkpoint, family.CLASSES)
    reasons += contradictions(found.checkpoint, found.describe(), family.codebooks(found.checkpoint))
    if reasons and not is_chosen:
        raise CheckpointError(
            f"{config.path}: {reasons[0]}: it belongs to another checkpoint, or this one is not of "
            f"family {found.name}. Give the config.json that belongs to it, or --family {found.name} to "
            "ignore it."
        )
    reasons = [words if words.startswith("config") else f"config.json {words}" for words in reasons]
    notes = (f"{words}; --family {found.name} decides, options decide the rest" for words in reasons)
    return replace(found, notes=tuple(notes))


def reasons_against(checkpoint: Checkpoint) -> dict[str, list[str]]:
    """List the reasons against each family; an empty list for each that fits."""
    return {
        name: [f"lacks {key}" for key in family.missing_keys(checkpoint)]
        + family.conflicting_keys(checkpoint)
        + foreign_classes(checkpoint, family.CLASSES)
        for name, family in FAMILIES.items()
    }


def foreign_classes(checkpoint: Checkpoint, own: tuple[str, ...]) -> list[str]:
    """List the classes that config.json names, unless one of them is a family's own."""
    classes = checkpoint.config.classes
    if not classes or any(name in own for name in classes):
        return []
    return [f"config.json has {key} {name}" for name, key in classes.items()]


def contradictions(checkpoint: Checkpoint, spec: TokenizerSpec, tables: list[str]) -> Iterator[str]:
    """List the settings of config.json that differ from the weights or from the encoder's conventions.

    The weights named `tables` hold the codes.
    """
    find = checkpoint.config.find
    sizes = {spec.vocab_size, *(checkpoint.shapes[name][0] for name in tables)}
    for keys, fitting in ((CODES, sizes), (DIMENSIONS, {spec.latent_dim})):
        key, value = find(*keys)
        if isinstance(value, int) and value not in fitting:
            yield f"{key} is {value}, but the weights have {' or '.join(map(str, sorted(fitting)))}"
    key, value = find(*LEVELS)
    halvings = _halvings(spec)
    if isinstance(value, list) and halvings is not None and len(value) != halvings + 1:
        yield f"{key} has {len(value)} levels, but the weights halve an image {halvings} times"
    key, value = find(*POOLING)
    if value is False and any(map(STRIDED.search, checkpoint.shapes)):
        yield f"{key} is false, but the weights downsample by convolutions"
    key, value = find(*ACTIVATIONS)
    if isinstance(value, str) and value not in ("silu", "swish"):
        yield f"{key} is {value}, but only silu is supported"


def _halvings(spec: TokenizerSpec) -> int | None:
    """Return how often an image is halved down to the grid of its latents, None if there is no grid."""
    side = math.isqrt(spec.scales[-1].tokens)
    if not spec.image_size or side**2 != spec.scales[-1].tokens or spec.image_size % side:
        return None
    return int(math.log2(spec.image_size // side))


def nearest_families(checkpoint: Checkpoint, reasons: Mapping[str, Sequence[str]]) -> list[str]:
    """Return at most two families of whose keys a checkpoint has half or more, the nearest first.

    Of families with as many reasons against them the nearer is that whose missing keys have others
    beside them, as a damaged file has; then that of which more keys are there.
    """
    nothing, found = Checkpoint.of_tensors(checkpoint.path, {}), {}
    parts = {tuple(name.split(".")[:2]) for name in checkpoint.shapes}
    for name, family in FAMILIES.items():
        required, missing = (family.missing_keys(of) for of in (nothing, checkpoint))
        if 2 * len(missing) <= len(required):
            apart = sum(tuple(key.split(".")[:2]) not in parts for key in missing)
            found[name] = len(reasons[name]), apart, len(missing) - len(required)
    return sorted(found, key=lambda name: found[name])[:2]


def detect(checkpoint: Checkpoint) -> str:
    """Return the family of a checkpoint and its config.json; CheckpointError if none or several fit."""
    reasons = reasons_against(checkpoint)
    fitting = [name for name, against in reasons.items() if not against]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise CheckpointError(
            f"{checkpoint.path}: fits {' and '.join(fitting)}, which make other tokens of an image, "
            "and nothing in it shows which it is. Choose with --family."
        )
    nearest = nearest_families(checkpoint, reasons)
    others = checkpoint.outside, checkpoint.config.classes
    if known := recognise(checkpoint.shapes, *others, narrowly=bool(nearest)):
        odd = [name for name in nearest if len(reasons[name]) == 1 and "lacks " not in reasons[name][0]]
        likely = [f"if it is {name} give --family {name}" for name in odd]
        advice = ", or ".join([*likely[:1], known.advice])
        raise CheckpointError(f"{checkpoint.path}: looks like {known.words}, {known.trouble}: {advice}.")
    if not nearest:
        raise CheckpointError(
            f"{checkpoint.path}: unknown layout, unlike every supported family. It has "
            f"{some(checkpoint.shapes, 3)}. Give the checkpoint of a tokenizer of images, or make "
            "latents with its own code and give --latents."
        )
    candidates = "; ".join(f"{name} ({some(reasons[name], 3)})" for name in nearest)
    raise CheckpointError(
        f"{checkpoint.path}: unknown layout. The nearest families: {candidates}. It has "
        f"{some(checkpoint.shapes, 3)}. If it is one of them choose with --family, or make latents "
        "with its own code and give --latents."
    )
