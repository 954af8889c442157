"""Generators that are recognised but not supported, so that an error can name them.

Source:
    FoundationVision/Infinity, mit-han-lab/hart, yandex-research/switti, daixiangzi/VAR-CLIP,
    jiaosiyu1999/FlexVAR, OliverRensu/MVAR, FoundationVision/LlamaGen, thu-ml/GFT, ziqipang/RandAR,
    Epiphqny/PAR, TencentARC/SEED-Voken (IBQ, Open-MAGVIT2), kakaobrain/rq-vae-transformer,
    CompVis/taming-transformers, bytedance/1d-tokenizer (RAR, its masked transformers), LTH14/mage,
    valeoai/Maskgit-pytorch, huggingface/open-muse, LTH14/mar, OliverRensu/xAR, deepseek-ai/Janus,
    baaivision/Emu3, showlab/Show-o; diffusers (UVit2DModel) and transformers, whose class names
    config.json has.
"""

from entropy_cli.tokenizers import unsupported
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.unsupported import Unsupported

CAPTIONS = "it is conditioned on captions, not on classes"
ORDER = "it predicts tokens in an order that is drawn"
NOT_YET = "it is not implemented yet"
MASKED_CLASSES = (
    *("UVit2DModel", "MaskGitTransformer", "MaskGiTUViT", "MaskGiTUViT_v2", "MaskGITTransformer"),
)
MASKED_KEYS = (
    (r"(.*\.)?mlm_layer\..*",),  # open-muse's, MAGE's
    (r"tok_emb\.weight", r"cls_emb\.weight", r"last_norm\..*"),  # Maskgit-pytorch's
    (r"in_blocks\.0\..*", r"lm_head\.weight"),  # 1d-tokenizer's UViTBert
    (r"model\.embeddings\.word_embeddings\.weight", r"model\.lm_head\.weight"),  # and ImageBert
)
UNSUPPORTED = (
    Unsupported(
        "Infinity's transformer",
        (r"text_proj_for_(sos|ca)\..*",),
        classes=("Infinity",),
        trouble="its loss is per bit and it is conditioned on captions",
    ),
    Unsupported(
        "HART's transformer", (r"context_embed\..*",), classes=("HARTForT2I",), trouble=CAPTIONS
    ),
    Unsupported(
        "Switti's transformer",
        (r"text_pooler\..*",),
        classes=("SwittiHF", "Switti"),
        trouble="it is conditioned on captions, and its scales don't see each other",
    ),
    Unsupported(
        "VAR-CLIP's transformer", (r"cond_proj\.weight", r"lvl_embed\.weight"), trouble=CAPTIONS
    ),
    Unsupported(
        "FlexVAR's transformer",
        (r"word_embed\.weight", r"pos_1LC", r"head_nm\.ada_lin\..*"),
        lacks=r"lvl_embed\.weight",
        trouble="it has no lvl_embed.weight, and each of its scales is the whole image",
    ),
    Unsupported(
        "M-VAR",
        (r"blocks\.\d+\.mamba\..*",),
        trouble="its scales see each other through Mamba, not attention",
    ),
    Unsupported(
        "LlamaGen's text-to-image transformer", (r"cls_embedding\.cap_proj\..*",), trouble=CAPTIONS
    ),
    Unsupported(
        "GFT's transformer",
        (r"tok_embeddings\.weight", r"t_embedder\..*"),
        trouble="its logits depend on a temperature that it is given",
    ),
    Unsupported("RandAR", (r"pos_instruct_embeddings",), trouble=ORDER),
    Unsupported("PAR", (r"spe_tok_embeddings\..*",), trouble="it predicts several tokens at once"),
    Unsupported(
        "Open-MAGVIT2's transformer",
        (r"(.*\.)?(spatial|factorized)_blocks\.\d+\..*",),
        trouble="it predicts each token as two sub-tokens",
    ),
    Unsupported(
        "IBQ's transformer",
        (r"(.*\.)?blocks\.0\.attention\.wqkv\.weight", r"(.*\.)?head_nm\.ada_lin\..*"),
        trouble=NOT_YET,
    ),
    Unsupported(
        "the RQ-Transformer",
        (r"(.*\.)?pos_emb_hw", r"(.*\.)?(body|head)_transformer\..*"),
        trouble=NOT_YET,
    ),
    Unsupported(
        "taming-transformers' GPT",
        (r"(.*\.)?blocks\.0\.attn\.key\.weight", r"(.*\.)?tok_emb\.weight"),
        trouble=NOT_YET,
    ),
    Unsupported("RAR", (r"(.*\.)?target_aware_pos_embed",), trouble=ORDER),
    Unsupported(
        "Janus",
        (r"gen_head\..*", r"gen_aligner\..*"),
        classes=("MultiModalityCausalLM", "JanusForConditionalGeneration", "multi_modality", "janus"),
        trouble=CAPTIONS,
    ),
    Unsupported(
        "Emu3",
        classes=("Emu3", "Emu3ForCausalLM", "Emu3ForConditionalGeneration"),
        trouble=CAPTIONS,
    ),
    Unsupported("Show-o", (r"showo\..*",), classes=("Showo",), trouble=CAPTIONS),
    Unsupported(
        "MAR, xAR or another model of continuous tokens",
        (r"(.*\.)?z_proj_ln\.weight",),
        trouble="its tokens are no codes",
    ),
    *(
        Unsupported(
            "a masked transformer (MaskGIT, MAGE, aMUSEd)",
            keys,
            classes=MASKED_CLASSES,
            trouble="its loss depends on the mask that is drawn: it is no likelihood by the chain rule",
        )
        for keys in MASKED_KEYS
    ),
)


def recognise(checkpoint: Checkpoint) -> Unsupported | None:
    """Return the unsupported kind of generator that weights or config.json show, if any."""
    return unsupported.recognise(
        checkpoint.shapes, checkpoint.outside, checkpoint.config.classes, UNSUPPORTED
    )
