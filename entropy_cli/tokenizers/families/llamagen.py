"""Family: LlamaGen's VQ tokenizers and Janus's: codes and latents are compared by direction.

Source:
    FoundationVision/LlamaGen tokenizer/tokenizer_image/vq_model.py, dataset/augmentation.py;
    deepseek-ai/Janus janus/models/vq_model.py, as Hugging Face's transformers renames it.
"""

from dataclasses import replace
from typing import ClassVar

from entropy_cli.tokenizers import relatives
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Temperature, Traits
from entropy_cli.tokenizers.family import Family, Plan
from entropy_cli.tokenizers.names import CODEBOOK, ENCODER, Layout
from entropy_cli.tokenizers.network import Network
from entropy_cli.tokenizers.preprocess import adm_crop

FLEXVAR_DIM = 32  # numbers of FlexVAR's codes, under the same names
LLAMAGEN_CODES = 16384  # all of LlamaGen's own trainings have as many, those of 32 numbers too
JANUS_SIZE = 384  # pixels
BLOCK = "encoder.conv_blocks.0.res.0.conv1.weight"
LAYOUT = Layout(
    renames=(
        (r"^encoder\.conv_blocks\.", "encoder.down."),
        (r"^(encoder\.down\.\d+)\.res\.", r"\1.block."),
        (r"^encoder\.mid\.0\.", "encoder.mid.block_1."),
        (r"^encoder\.mid\.1\.", "encoder.mid.attn_1."),
        (r"^encoder\.mid\.2\.", "encoder.mid.block_2."),
    ),
    unused={"quantize.codebook_used": "the codes that training chose last"},
)


class LlamaGen(Family):
    """The family; transformers gives Janus the names of a VQGAN."""

    EMA_BY_DEFAULT = True
    CLASSES = (*relatives.JANUS_CLASSES, "VQModelHF")
    REQUIRED = (
        BLOCK,
        "encoder.mid.0.conv1.weight",
        "encoder.mid.2.conv1.weight",
        "encoder.conv_in.weight",
        "encoder.conv_out.weight",
        "quant_conv.weight",
        CODEBOOK,
    )
    IDENTIFYING_KEYS: ClassVar = {
        BLOCK: "LlamaGen's name for the encoder's blocks",
        REQUIRED[1]: "its name for those in the middle",
    }
    LAYOUT = LAYOUT
    TRAITS = Traits(
        family="llamagen",
        published_by="LlamaGen",
        rule="cosine",
        temperatures={"cosine": Temperature((0.01,), "compute_entropy_loss in LlamaGen's quantiser")},
        crop=adm_crop,
    )

    def missing_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List the required weights that a checkpoint lacks, in one of the two layouts."""
        could_be = relatives.is_janus(checkpoint) or relatives.could_be_janus(checkpoint)
        if BLOCK not in checkpoint.shapes and could_be:
            return [name for name in (*ENCODER, CODEBOOK) if name not in checkpoint.shapes]
        return super().missing_keys(checkpoint)

    def conflicting_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List what marks a VQGAN (its names, unless they are Janus's in transformers) or FlexVAR."""
        codes = checkpoint.shapes.get(CODEBOOK, ())
        if codes[1:] == (FLEXVAR_DIM,) and codes[0] != LLAMAGEN_CODES:
            return [f"has codes of {FLEXVAR_DIM} dimensions, as FlexVAR's ten scales have"]
        janus = relatives.is_janus(checkpoint) or relatives.could_be_janus(checkpoint)
        return [] if BLOCK in checkpoint.shapes or janus else [f"no {BLOCK}, and no Janus"]

    def _traits(self, checkpoint: Checkpoint, network: Network) -> Traits:
        return replace(self.TRAITS, image_size=JANUS_SIZE) if _is_janus(checkpoint) else self.TRAITS

    def _notes(self, plan: Plan) -> list[str]:
        notes = [
            "Janus's tokenizer; how its images are cropped is not published, LlamaGen's way is taken, "
            f"at {JANUS_SIZE} pixels by default",
            "its codes are compared by direction, as Janus does; transformers' own class compares "
            "distances: for its tokens give --rule l2",
        ]
        renamed = BLOCK not in plan.checkpoint.shapes
        return notes[: 1 + renamed] if _is_janus(plan.checkpoint) else []


def _is_janus(checkpoint: Checkpoint) -> bool:
    return BLOCK not in checkpoint.shapes or checkpoint.prefix.endswith("gen_vision_model.")
