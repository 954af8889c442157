"""Generators that are recognised but not supported, so that an error can name them.

Source:
    FoundationVision/Infinity, mit-han-lab/hart, yandex-research/switti, FoundationVision/LlamaGen,
    thu-ml/GFT, TencentARC/SEED-Voken (IBQ, Open-MAGVIT2), kakaobrain/rq-vae-transformer,
    bytedance/1d-tokenizer (RAR), deepseek-ai/Janus, baaivision/Emu3, huggingface/open-muse,
    showlab/Show-o; diffusers (UVit2DModel) and transformers, whose class names
    config.json has.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Unsupported:
    """A kind of generator: its name, why it is not supported, and patterns of names that it has.

    It has weights of each pattern, or config.json names one of its classes.
    """

    words: str
    reason: str
    keys: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def fits(self, names: Collection[str], classes: Mapping[str, str]) -> bool:
        """Return whether a checkpoint has such weights, or config.json one of its classes."""
        has_keys = bool(self.keys) and all(any(map(re.compile(k).fullmatch, names)) for k in self.keys)
        return has_keys or any(name in classes for name in self.classes)


CAPTIONS = "it is conditioned on captions, not on classes"
MASKED = "its loss depends on the mask that is drawn: it is no likelihood by the chain rule"
NOT_YET = "it is not implemented yet"
UNSUPPORTED = (
    Unsupported(
        "Infinity's transformer",
        "its loss is per bit and it is conditioned on captions",
        (r"text_proj_for_(sos|ca)\..*",),
        ("Infinity",),
    ),
    Unsupported("HART's transformer", CAPTIONS, (r"context_embed\..*",), ("HARTForT2I",)),
    Unsupported(
        "Switti's transformer",
        "it is conditioned on captions, and its scales don't see each other",
        (r"text_pooler\..*",),
        ("SwittiHF", "Switti"),
    ),
    Unsupported("LlamaGen's text-to-image transformer", CAPTIONS, (r"cls_embedding\.cap_proj\..*",)),
    Unsupported(
        "GFT's transformer",
        "its logits depend on a temperature that it is given",
        (r"tok_embeddings\.weight", r"t_embedder\..*"),
    ),
    Unsupported(
        "Open-MAGVIT2's transformer",
        "it predicts each token as two sub-tokens",
        (r"(.*\.)?(spatial|factorized)_blocks\.\d+\..*",),
    ),
    Unsupported(
        "IBQ's transformer",
        NOT_YET,
        (r"(.*\.)?blocks\.0\.attention\.wqkv\.weight", r"(.*\.)?head_nm\.ada_lin\..*"),
    ),
    Unsupported(
        "the RQ-Transformer", NOT_YET, (r"(.*\.)?pos_emb_hw", r"(.*\.)?(body|head)_transformer\..*")
    ),
    Unsupported(
        "RAR", "it predicts tokens in an order that is drawn", (r"(.*\.)?target_aware_pos_embed",)
    ),
    Unsupported(
        "Janus",
        CAPTIONS,
        (r"gen_head\..*", r"gen_aligner\..*"),
        ("MultiModalityCausalLM", "JanusForConditionalGeneration", "multi_modality", "janus"),
    ),
    Unsupported("Emu3", CAPTIONS, classes=("Emu3", "Emu3ForCausalLM", "Emu3ForConditionalGeneration")),
    Unsupported("Show-o", CAPTIONS, (r"showo\..*",), ("Showo",)),
    Unsupported(
        "a masked transformer (MaskGIT, aMUSEd)",
        MASKED,
        (r"(.*\.)?mlm_layer\..*",),
        ("UVit2DModel", "MaskGitTransformer", "MaskGiTUViT", "MaskGiTUViT_v2", "MaskGITTransformer"),
    ),
)


def recognise(names: Collection[str], classes: Mapping[str, str]) -> Unsupported | None:
    """Return the unsupported kind that names of weights or config.json show, if any."""
    return next((kind for kind in UNSUPPORTED if kind.fits(names, classes)), None)
