"""Family: VQ-KD, the tokenizer of BEiT v2: unit latents, and codes that training averages.

Source:
    microsoft/unilm beit2/modeling_vqkd.py, norm_ema_quantizer.py, test_get_code.py (preprocessing).
"""

from typing import ClassVar

from entropy_cli.tokenizers.choices import Traits
from entropy_cli.tokenizers.families.titok import TiTokTokenizer
from entropy_cli.tokenizers.family import Family
from entropy_cli.tokenizers.layers.vqkd_encoder import TASK, VQKDEncoder
from entropy_cli.tokenizers.names import CODEBOOK, Layout
from entropy_cli.tokenizers.network import EncoderNetwork
from entropy_cli.tokenizers.preprocess import beit_crop


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
    LAYOUT: ClassVar = Layout(
        renames=((rf"^{TASK}\.", f"encoder.{TASK}."),),
        unused={
            "decode_task_layer.": "of the decoder",
            "teacher_model.": "what training imitates",
            "scaling_layer.": "the teacher's pixels",
            "quantize.cluster_size": "how often each code was chosen",
            "quantize.embedding.cluster_size": "the same",
            "quantize.embedding.embed_avg": "what the codes are averages of",
            "quantize.embedding.initted": "whether training has begun",
        },
    )
    NOTES = ("latents are scaled to unit length, codes are taken as they are",)
    TRAITS = Traits(
        family="vq-kd",
        published_by="BEiT v2",
        rule="l2",
        crop=beit_crop,
    )
    NETWORK = staticmethod(lambda shapes, _: EncoderNetwork(VQKDEncoder(shapes)))
    TOKENIZER = TiTokTokenizer
