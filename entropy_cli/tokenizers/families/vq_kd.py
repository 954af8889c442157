"""Family: VQ-KD, the tokenizer of BEiT v2: unit latents, and codes that training averages.

Source:
    microsoft/unilm beit2/modeling_vqkd.py, norm_ema_quantizer.py, test_get_code.py (preprocessing).
"""

from typing import ClassVar

import torch

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.tokenizers.base import TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.convolutional import refuse_unread
from entropy_cli.tokenizers.families.titok import TiTokTokenizer
from entropy_cli.tokenizers.family import Family, choose_rule, choose_temperature, grid_scale
from entropy_cli.tokenizers.layers.vqkd_encoder import TASK, VQKDEncoder
from entropy_cli.tokenizers.names import CODEBOOK
from entropy_cli.tokenizers.preprocess import beit_crop
from entropy_cli.tokenizers.settings import TokenizerSettings

UNUSED = {
    "decode_task_layer.": "of the decoder",
    "teacher_model.": "what training imitates",
    "scaling_layer.": "the teacher's pixels",
    "quantize.cluster_size": "how often each code was chosen",
    "quantize.embedding.cluster_size": "the same",
    "quantize.embedding.embed_avg": "what the codes are averages of",
    "quantize.embedding.initted": "whether training has begun",
}


class VQKD(Family):
    """The family; positions are learned, so the image size is fixed."""

    REQUIRED = (
        f"{TASK}.0.weight",
        f"{TASK}.2.weight",
        "encoder.patch_embed.proj.weight",
        "encoder.pos_embed",
        CODEBOOK,
    )
    IDENTIFYING_KEYS: ClassVar = {
        REQUIRED[0]: "the layers between BEiT v2's transformer and its codes",
        REQUIRED[2]: "its transformer",
    }

    def describe(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
        """Describe the tokenizer; another image size is refused."""
        encoder = _plan(checkpoint)
        refuse_unread(checkpoint, [*_names(encoder).values(), CODEBOOK], UNUSED)
        image_size = encoder.side * encoder.patch_size
        if settings.image_size not in (None, image_size):
            raise CheckpointError(
                f"{checkpoint.path}: got --image-size {settings.image_size}, but its positions are for "
                f"images of {image_size} pixels. Leave it out."
            )
        codes, latent_dim = checkpoint.shapes[CODEBOOK]
        rule = choose_rule(settings, "l2")
        temperature = choose_temperature(rule, {}, "BEiT v2")
        return TokenizerSpec(
            family="vq-kd",
            latent_dim=latent_dim,
            image_size=image_size,
            scales=grid_scale(encoder.side, Vocabulary(codes), settings),
            rule=rule,
            crop=beit_crop(image_size),
            pixels="[-1, 1]",
            temperatures=temperature.values,
            temperature_source=temperature.source,
            labels="hard",
            notes=("latents are scaled to unit length, codes are taken as they are",),
        )

    def build(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> TiTokTokenizer:
        """Read the weights and build the tokenizer."""
        spec, encoder = self.describe(checkpoint, settings), _plan(checkpoint)
        weights = {ours: checkpoint.finite(theirs) for ours, theirs in _names(encoder).items()}
        encoder.load_state_dict(weights, assign=True)
        codebook = Codebook(checkpoint.finite(CODEBOOK), spec.rule)
        return TiTokTokenizer(spec, encoder.eval().requires_grad_(requires_grad=False), [codebook])


def _names(encoder: VQKDEncoder) -> dict[str, str]:
    """Map the encoder's names of its weights to the published ones."""
    return {name: name if name.startswith(TASK) else f"encoder.{name}" for name in encoder.state_dict()}


def _plan(checkpoint: Checkpoint) -> VQKDEncoder:
    """Build the encoder on the meta device, or raise CheckpointError."""
    shapes = checkpoint.shapes
    try:
        with torch.device("meta"):
            encoder = VQKDEncoder(shapes)
        expected = {
            theirs: tuple(encoder.state_dict()[n].shape) for n, theirs in _names(encoder).items()
        }
        codes = shapes[CODEBOOK][0]
        expected[CODEBOOK] = (max(1, codes), encoder.encode_task_layer[2].out_features)
        wrong = [name for name, shape in expected.items() if shapes[name] != shape]
    except (KeyError, ValueError, IndexError) as error:
        missing = isinstance(error, KeyError)
        reason = f"lacks {error.args[0]}, or its name in this family" if missing else str(error)
        raise CheckpointError(f"{checkpoint.path}: not a usable VQ-KD: {reason}.") from error
    if wrong:
        raise CheckpointError(
            f"{checkpoint.path}: sizes contradict each other: {wrong[0]} has shape {shapes[wrong[0]]}, "
            f"but other weights imply {expected[wrong[0]]}."
        )
    return encoder
