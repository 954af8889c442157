"""Family: VQGAN of taming-transformers and latent diffusion, with distances or Gumbel-softmax logits.

Chameleon, Anole and Lumina keep the layout.

Source:
    CompVis/taming-transformers taming/modules/vqvae/quantize.py, taming/data/base.py;
    CompVis/latent-diffusion ldm/models/autoencoder.py;
    facebookresearch/chameleon chameleon/inference/image_tokenizer.py;
    huggingface/open-muse muse/modeling_taming_vqgan.py.
"""

import re
from dataclasses import replace
from functools import partial
from typing import ClassVar

from PIL.Image import Resampling
from torch import Tensor

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.tokenizers.base import TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Temperature, Traits
from entropy_cli.tokenizers.family import Family, Plan
from entropy_cli.tokenizers.layers.autoencoder import Conventions, count
from entropy_cli.tokenizers.names import CODEBOOK, ENCODER, Layout
from entropy_cli.tokenizers.network import Network, logit_layer, vocab_size
from entropy_cli.tokenizers.preprocess import chameleon_crop, opencv_crop, resize_crop

MUSE_CLASS = "VQGANModel"  # of open-muse
MOVQ = re.compile(r"decoder\..*\.conv_y\.weight")  # MoVQ's norms, which only its decoder has
CHAMELEON_CLASSES = (
    *("chameleon", "chameleon_vqgan", "ChameleonVQVAE", "ChameleonModel"),
    *("ChameleonForConditionalGeneration", "ChameleonXLLMXForConditionalGeneration"),
)
FIRST_UP = "decoder.up.0.upsample.conv.weight"
JANUS_CLASSES = (
    *("janus", "janus_vqgan", "JanusVQVAE", "JanusModel", "JanusForConditionalGeneration"),
    *("multi_modality", "MultiModalityCausalLM"),
)
CHAMELEON_CODES, JANUS_CODES = (8192, 256), (16384, 8)
PROJECTION, PROJECTION_BIAS = "quantize.proj.weight", "quantize.proj.bias"
USED = "quantize.used"
DOWN = "encoder.down.0.downsample.conv.weight"  # unless open-muse's averages
FOURTH_BLOCK = "encoder.down.0.block.3.conv1.weight"
LAYOUT = Layout(
    unused={
        "quantize.embedding.cluster_size": "how often each code was chosen, averaged by training",
        "quantize.embedding.embed_avg": "what the codes are averages of",
    }
)
POOLED_LAYOUT = replace(LAYOUT, conventions=Conventions(pools=True))
GUMBEL_LAYOUT = Layout(unused={"quantize.embed.": "what hard tokens are decoded with"})
TRAITS = Traits(
    family="vqgan",
    published_by="VQGAN",
    rule="l2",
    temperatures={
        "logits": Temperature((1.0,), "softmax of the logits, as in taming's KL term: a true posterior"),
    },
    labels="hard",
    crop=opencv_crop,
)
GUMBEL = replace(TRAITS, rule="logits")
CHAMELEON = replace(TRAITS, image_size=512, crop=chameleon_crop)
MUSE = replace(
    TRAITS,
    published_by="open-muse",
    temperatures={"l2": Temperature((1.0,), "get_soft_code(temp=1.0) in open-muse's quantiser")},
    pixels="[0, 1]",
    crop=partial(resize_crop, interpolation=Resampling.BILINEAR),
)


class VQGAN(Family):
    """The family; its variants are told by their keys, their shapes or config.json."""

    CLASSES = (*CHAMELEON_CLASSES, MUSE_CLASS)
    IDENTIFYING_KEYS: ClassVar = {
        PROJECTION: "the layer that gives each code's logit (Gumbel VQGAN)",
        CODEBOOK: "one codebook",
        ENCODER[2]: "the encoder of latent diffusion's autoencoders, as taming named it",
    }
    LAYOUT = LAYOUT
    TRAITS = TRAITS

    def missing_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List the required weights that a checkpoint lacks; either kind of codes will do."""
        is_gumbel = PROJECTION in checkpoint.shapes
        names = (PROJECTION_BIAS if is_gumbel else CODEBOOK, *ENCODER)
        return [name for name in names if name not in checkpoint.shapes]

    def conflicting_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List what marks VAR or Janus."""
        found = multi_scale(checkpoint)
        janus = ["it is Janus's, by its names or sizes"] if is_janus(checkpoint) else []
        return [f"has {name}" for name in found] + janus

    def codebooks(self, checkpoint: Checkpoint) -> list[str]:
        """List the name of the codebook, or of the linear layer that maps latents to logits."""
        return [PROJECTION if PROJECTION in checkpoint.shapes else CODEBOOK]

    def layout(self, checkpoint: Checkpoint) -> Layout:
        """Return the layout of its kind."""
        if PROJECTION in checkpoint.shapes:
            return GUMBEL_LAYOUT
        if MUSE_CLASS not in checkpoint.config.classes:
            return LAYOUT
        return replace(
            LAYOUT if DOWN in checkpoint.shapes else POOLED_LAYOUT,
            unused={**LAYOUT.unused, **dict.fromkeys(_idle(checkpoint), "attention that never runs")},
        )

    def _others(self, checkpoint: Checkpoint) -> list[str]:
        bias = [PROJECTION_BIAS] if PROJECTION in checkpoint.shapes else []
        return [*self.codebooks(checkpoint), *bias, USED]

    def _vocabulary(self, plan: Plan) -> Vocabulary:
        (name,) = self.codebooks(plan.checkpoint)
        size = vocab_size(plan.checkpoint, name, plan.network, is_layer=name == PROJECTION)
        return Vocabulary(self._number_used(plan.checkpoint) or size)

    def _traits(self, checkpoint: Checkpoint, network: Network) -> Traits:
        if MUSE_CLASS in checkpoint.config.classes:
            return MUSE
        if _is_chameleon(checkpoint):
            return CHAMELEON
        return GUMBEL if PROJECTION in checkpoint.shapes else TRAITS

    def _notes(self, plan: Plan) -> list[str]:
        notes = []
        if _is_chameleon(plan.checkpoint):
            notes.append("Chameleon's image tokenizer: images of 512 pixels by default")
        if used := self._number_used(plan.checkpoint):
            notes.append(
                f"only the {used} codes that the checkpoint lists as used are codes here; the published "
                "code assigns to all, and renames the others to one of these at random"
            )
        return notes

    def _number_used(self, checkpoint: Checkpoint) -> int | None:
        """Return the number of codes listed as used, None without a list or if all are listed."""
        shape = checkpoint.shapes.get(USED)
        if shape is None:
            return None
        if len(shape) != 1 or not shape[0]:
            raise CheckpointError(
                f"{checkpoint.path}: {USED} has shape {shape}, expected a list of codes."
            )
        all_codes = checkpoint.shapes[self.codebooks(checkpoint)[0]][0]
        return None if shape[0] == all_codes else shape[0]

    def _codes(self, checkpoint: Checkpoint, spec: TokenizerSpec) -> list[Codebook]:
        if spec.rule != "logits":
            return [Codebook(_used(checkpoint, checkpoint.finite(CODEBOOK)), spec.rule)]
        weight_VC, bias_V = logit_layer(checkpoint, PROJECTION, PROJECTION_BIAS)
        return [Codebook(_used(checkpoint, weight_VC), "logits", _used(checkpoint, bias_V))]


def is_janus(checkpoint: Checkpoint) -> bool:
    """Return whether it is Janus in transformers' layout: LlamaGen's tokenizer with these names.

    By config.json, by prefix and sizes, or by the decoder, whose levels LlamaGen counts from the last.
    """
    inside = checkpoint.prefix.endswith("vqmodel.") and checkpoint.shapes.get(CODEBOOK) == JANUS_CODES
    named = any(name in checkpoint.config.classes for name in JANUS_CLASSES)
    return inside or named or FIRST_UP in checkpoint.shapes


def could_be_janus(checkpoint: Checkpoint) -> bool:
    """Return whether it may be Janus with these names, saved without the rest of the model.

    Latent diffusion's f16 has as many and as long codes; its own training leaves its loss in the file.
    """
    trained_here = any(name.startswith("loss.") for name in checkpoint.shapes)
    return checkpoint.shapes.get(CODEBOOK) == JANUS_CODES and not trained_here


def is_movq(checkpoint: Checkpoint) -> bool:
    """Return whether the decoder is that of a MoVQGAN."""
    return any(MOVQ.fullmatch(name) for name in checkpoint.shapes)


def multi_scale(checkpoint: Checkpoint) -> list[str]:
    """Return one of VAR's convolutions between scales, if the checkpoint has any."""
    return [name for name in checkpoint.shapes if name.startswith("quantize.quant_resi.")][:1]


def _idle(checkpoint: Checkpoint) -> list[str]:
    """List the levels' attention that open-muse's forward pass leaves out: after an only block."""
    shapes, block = checkpoint.shapes, "encoder.down.{}.block.{}.conv1.weight"
    levels = count(shapes, block.format("{}", 0))
    return [f"encoder.down.{i}.attn." for i in range(levels) if block.format(i, 1) not in shapes]


def _is_chameleon(checkpoint: Checkpoint) -> bool:
    """Return whether it is Chameleon's, by config.json, by its prefix or by where it has attention."""
    shapes = checkpoint.shapes
    if any(name in checkpoint.config.classes for name in CHAMELEON_CLASSES):
        return True
    if shapes.get(CODEBOOK) != CHAMELEON_CODES:
        return False
    attends = any(".attn." in name for name in shapes if name.startswith("encoder.down."))
    in_middle = "encoder.mid.attn_1.q.weight" in shapes
    levels = count(shapes, "encoder.down.{}.block.0.conv1.weight")
    return checkpoint.prefix.endswith("vqmodel.") or (in_middle and not attends and levels == 5)


def _used(checkpoint: Checkpoint, of_V: Tensor) -> Tensor:
    """Return the rows of the used codes, in codebook order if all are used."""
    if USED not in checkpoint.shapes:
        return of_V
    used_U = checkpoint.integers(USED)
    if used_U.min() < 0 or used_U.max() >= len(of_V):
        raise CheckpointError(f"{checkpoint.path}: {USED} names codes that don't exist.")
    if len(set(used_U.tolist())) < len(used_U):
        raise CheckpointError(f"{checkpoint.path}: {USED} names a code twice.")
    return of_V if len(used_U) == len(of_V) else of_V[used_U]
