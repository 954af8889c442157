"""Family: VQGAN of taming-transformers and latent diffusion, with distances or Gumbel-softmax logits.

Chameleon, Anole and Lumina keep the layout.

Source:
    CompVis/taming-transformers taming/modules/vqvae/quantize.py, taming/data/base.py;
    CompVis/latent-diffusion ldm/models/autoencoder.py;
    facebookresearch/chameleon chameleon/inference/image_tokenizer.py;
    huggingface/open-muse muse/modeling_taming_vqgan.py.
"""

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
from entropy_cli.tokenizers.layers.autoencoder import Conventions
from entropy_cli.tokenizers.names import CODEBOOK, ENCODER, Layout
from entropy_cli.tokenizers.network import Network, logit_layer, vocab_size
from entropy_cli.tokenizers.preprocess import chameleon_crop, opencv_crop, resize_crop
from entropy_cli.tokenizers.relatives import (
    CHAMELEON_CLASSES,
    idle_attention,
    is_chameleon,
    is_janus,
    multi_scale,
)

MUSE_CLASS = "VQGANModel"  # of open-muse
PROJECTION, PROJECTION_BIAS = "quantize.proj.weight", "quantize.proj.bias"
USED = "quantize.used"
DOWN = "encoder.down.0.downsample.conv.weight"  # unless open-muse's averages
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
        layout = LAYOUT if DOWN in checkpoint.shapes else POOLED_LAYOUT
        return replace(layout, unused={**LAYOUT.unused, **idle_attention(checkpoint)})

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
        if is_chameleon(checkpoint):
            return CHAMELEON
        return GUMBEL if PROJECTION in checkpoint.shapes else TRAITS

    def _notes(self, plan: Plan) -> list[str]:
        notes = []
        if is_chameleon(plan.checkpoint):
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
