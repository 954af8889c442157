"""The table of dialects: what each program prints or writes, one row each.

Source:
    FoundationVision/VAR and Infinity: train.py, trainer.py, utils/misc.py, utils/arg_util.py.
    FoundationVision/LlamaGen: autoregressive/train/train_c2i.py, tokenizer/tokenizer_image/vq_train.py;
    facebookresearch/DiT: train.py.
    karpathy/nanoGPT: train.py; build-nanogpt: train_gpt2.py; minGPT: projects/chargpt/chargpt.py; llm.c:
    train_gpt2.cu, llmc/logger.h; KellerJordan/modded-nanogpt: train_gpt2.py.
    pytorch/torchtitan: torchtitan/components/metrics.py; NVIDIA/Megatron-LM: megatron/training.
    facebookresearch/ijepa, jepa, vjepa2: src/train.py, src/utils/logging.py, app/vjepa/train.py; mae:
    main_pretrain.py; fairseq: fairseq/logging/progress_bar.py.
    huggingface/transformers: src/transformers/trainer.py; huggingface/pytorch-image-models: train.py.
"""

import math
from collections.abc import Mapping

from entropy_cli.commands.monitor.logs.dialect import (
    ACCURACY,
    ADVERSARY,
    CLASSES,
    CODE_BITS,
    CODEBOOK,
    GRADIENT,
    LATENTS,
    NOISE,
    PERCEPTION,
    PIXELS,
    SUM,
    TOKEN_BITS,
    TOKENS,
    Dialect,
    like,
)
from entropy_cli.commands.monitor.logs.series import Metric

PIXELS_PER_TOKEN, MAX_SIDE = 16, 64  # of VAR's tokenizer

MEAN = "mean over all tokens"
LAST = "mean over the final scale"
BEST = "running maximum: the log has no accuracy of the current epoch"
BIT = "of the bits of a token, per bit: an untrained model has ln 2 = 0.693"
SINCE = "mean since the previous line"

LM = like(TOKENS, "Lm", scope="mean", description=MEAN)
LT = like(TOKENS, "Lt", scope="last", description=LAST)
ACCM = like(ACCURACY, "Accm", scope="mean", description=BEST, statistic="best")
ACCT = like(ACCURACY, "Acct", scope="last", description=BEST, statistic="best")
BIT_LM = like(CODE_BITS, "Lm", scope="mean", description=f"mean cross-entropy {BIT}")
BIT_LT = like(CODE_BITS, "Lt", scope="last", description=f"cross-entropy of the final scale, {BIT}")
BIT_ACC = "percent of the bits that are right, the most so far"
BIT_ACCM = like(ACCURACY, "Accm", description=BIT_ACC, statistic="best")
BIT_ACCT = like(ACCURACY, "Acct", description=BIT_ACC, statistic="best")

VAR_MEANS: dict[str, Metric] = {
    "L_mean": like(TOKENS, scope="mean"),
    "L_tail": like(TOKENS, scope="last"),
    "acc_mean": like(ACCURACY, scope="mean"),
    "acc_tail": like(ACCURACY, scope="last"),
    "vL_mean": like(TOKENS, "vL_mean", split="val", scope="mean"),
    "vL_tail": like(TOKENS, "vL_tail", split="val", scope="last"),
    "vacc_mean": like(ACCURACY, "vacc_mean", split="val", scope="mean"),
    "vacc_tail": like(ACCURACY, "vacc_tail", split="val", scope="last"),
}
VAR_SCALES: dict[str, Metric] = {
    f"AR_iter_loss/{name}_{PIXELS_PER_TOKEN * side}": like(kind, scope=side)
    for side in range(1, MAX_SIDE + 1)
    for name, kind in (("L", TOKENS), ("acc", ACCURACY))
}
VAR_TAGS: dict[str, Metric] = {
    f"AR_{part}_loss/{name}": like(metric, f"AR_{part}_loss/{name}")
    for part in ("ep", "iter")
    for name, metric in VAR_MEANS.items()
}
TRAIN, VAL = like(TOKENS, "train loss"), like(TOKENS, "val loss", split="val")
LLAMAGEN = ("(step=", "Train Loss: ", "Train Steps/Sec")
TOKENIZER: dict[str, Metric] = {
    **dict.fromkeys(("rec_loss", "recon_loss", "nll_loss", "l1_loss", "mse_loss"), PIXELS),
    **dict.fromkeys(("p_loss", "perceptual_loss", "lpips_loss"), PERCEPTION),
    **dict.fromkeys(("quant_loss", "vq_loss", "commit_loss", "codebook_loss", "entropy_loss"), CODEBOOK),
    **dict.fromkeys(("g_loss", "disc_loss", "generator_adv_loss", "discriminator_adv_loss"), ADVERSARY),
    **dict.fromkeys(("aeloss", "discloss", "loss", "total_loss"), SUM),
}

DIALECTS: Mapping[str, Dialect] = {
    "var": Dialect(
        "lines",
        (("[Ep]: ", "[ep"), ("Lm: ", "L1: ", "NLL: ", "Nll: ")),
        {
            **dict.fromkeys(("Lm", "Lmean", "CELm"), LM),
            **dict.fromkeys(("Lt", "Ltail", "CELt"), LT),
            "Accm": ACCM,
            "Acct": ACCT,
            "Acc m&t": (ACCM, ACCT),
            **VAR_MEANS,
            "vLm": like(LM, split="val"),
            "vLt": like(LT, split="val"),
            "tnm": GRADIENT,
            "gnm": GRADIENT,
            **dict.fromkeys(("L1", "NLL", "Nll"), PIXELS),
            "Ld": ADVERSARY,
        },
        brackets="worse",
        unplaced="none",
        starts="=> initial args:",
        placeholders=(-1, 999),
    ),
    "infinity": Dialect(
        "lines",
        (("[Ep]: ", "[ep"), ("Lm: ", "Lmean: "), ("dataT: ", "Lmean: ")),
        {
            **dict.fromkeys(("Lm", "Lmean"), BIT_LM),
            **dict.fromkeys(("Lt", "Ltail"), BIT_LT),
            "Accm": BIT_ACCM,
            "Acct": BIT_ACCT,
            "Acc m-t": (BIT_ACCM, BIT_ACCT),
            "tnm": GRADIENT,
        },
        brackets="worse",
        unplaced="none",
        starts="=> initial args:",
        placeholders=(-1, 999),
    ),
    "var-log-txt": Dialect(
        "records",
        (("'it': ", "'L_mean': "), "'ep': ", ("'L_mean': ", "'L_tail': ")),
        {**VAR_MEANS, "grad_norm": like(GRADIENT, "tnm")},
        ignored=("it", "iter"),
        starts='"is_master"',
        placeholders=(-1,),
    ),
    "llamagen": Dialect(
        "lines",
        LLAMAGEN,
        {"Train Loss": like(TOKENS, description=SINCE, statistic="mean")},
        starts="Training for ",
        first=(2.0, math.inf),  # below any cross-entropy of codes that LlamaGen reached
    ),
    "llamagen-tokenizer": Dialect(
        "lines",
        (*LLAMAGEN, ("(Generator)", "(Discriminator)")),
        {
            **TOKENIZER,
            "Train Loss": like(
                SUM, description="sum of generator and discriminator losses, not a cross-entropy"
            ),
        },
        unplaced="next",
        starts="Training for ",
    ),
    "dit": Dialect(
        "lines",
        LLAMAGEN,
        {"Train Loss": like(NOISE, description="squared error of a diffusion model, no cross-entropy")},
        starts="Training for ",
    ),
    "nanogpt": Dialect(
        "lines",
        (("iter ", "step "), (": loss ", ": train loss "), (", mfu ", ", val loss ")),
        {
            "train loss": TRAIN,
            "val loss": VAL,
            "loss": like(TOKENS, description="loss of a single batch"),
        },
    ),
    "build-nanogpt": Dialect(
        "lines",
        ("step ", "| loss: ", "| norm: ", "| tok/sec: "),
        {
            "loss": TRAIN,
            "validation loss": VAL,
            "norm": GRADIENT,
            "HellaSwag accuracy": like(ACCURACY, split="val", description="as a fraction"),
        },
        unplaced="next",
    ),
    "build-nanogpt-log": Dialect(
        "lines",
        (
            (" train ", " val "),
            ("\n1 ", "\n10 ", "\n50 ", "\n100 ", "\n250 ", "\n500 ", "\n1000 "),
        ),
        {
            "train": TRAIN,
            "val": VAL,
            "hella": like(ACCURACY, split="val", description="HellaSwag accuracy, as a fraction"),
        },
    ),
    "modded-nanogpt": Dialect(
        "lines",
        ("step:", ("train_loss:", "val_loss:"), "train_time:"),
        {"train_loss": TRAIN, "val_loss": VAL},
        unplaced="none",  # it begins with the program's source
    ),
    "mingpt": Dialect("lines", ("iter_dt ", "; iter ", ": train loss "), {"train loss": TRAIN}),
    "llm.c": Dialect(
        "lines",
        ("step ", "loss ", " ms", " tok/s"),
        {
            **dict.fromkeys(("loss", "train loss"), TRAIN),
            "val loss": VAL,
            "norm": GRADIENT,
            "HellaSwag": like(ACCURACY, split="val", description="as a fraction"),
        },
    ),
    "llm.c-log": Dialect(
        "lines",
        ("s:", (" trl:", " tel:")),
        {
            "trl": TRAIN,
            "tel": VAL,
            "norm": GRADIENT,
            "eval": like(ACCURACY, split="val", description="HellaSwag accuracy, as a fraction"),
        },
        steps=("s",),
    ),
    "torchtitan": Dialect(
        "lines",
        ("step: ", "loss: ", "tps: ", ("tflops: ", "memory: ")),
        {"loss": TOKENS, "grad_norm": GRADIENT},
    ),
    "megatron": Dialect(
        "lines",
        (
            "iteration ",
            "elapsed time per iteration (",
            ("consumed samples: ", "global batch size: ", "number of skipped iterations: "),
        ),
        {
            **dict.fromkeys(("lm loss", "lm_loss"), like(TOKENS, description=SINCE, statistic="mean")),
            **dict.fromkeys(
                ("lm loss value", "lm_loss value"), like(TOKENS, "validation loss", split="val")
            ),
            "grad norm": GRADIENT,
        },
    ),
    "jepa": Dialect(
        "lines",
        ("] loss: ", ("input_var: ", "masks: ", "[wd: ", "[mem: ")),
        {
            "loss": like(LATENTS, description="running mean of the epoch", statistic="mean"),
            "avg. loss": None,
        },
    ),
    "ijepa-csv": Dialect("table", ("epoch,itr,loss,mask-A",), losses=LATENTS),
    "vjepa-csv": Dialect("table", ("epoch,itr,loss",), losses=LATENTS),
    "huggingface": Dialect("document", ('"log_history"',), losses=TOKENS),
    "huggingface-stdout": Dialect(
        "records", ("'loss': ", "'learning_rate': ", "'epoch': "), losses=TOKENS
    ),
    "mae": Dialect(
        "records",
        ('"train_loss": ', '"train_lr": ', '"epoch": '),
        {"train_loss": like(NOISE, description="MAE: of pixels, MAR: of diffusion; no cross-entropy")},
        first=(-math.inf, 2.0),  # above, it is of another program that logs as MAE does
    ),
    "beit": Dialect(
        "records", ('"train_loss": ', '"train_mlm_acc": ', '"epoch": ', '"train_lr": '), losses=TOKENS
    ),
    "mae-finetune": Dialect(
        "records",
        ('"train_loss": ', '"train_lr": ', '"epoch": ', '"test_acc1": '),
        losses=CLASSES,
    ),
    "fairseq": Dialect(
        "records",
        ('num_updates": ', '"epoch": ', 'loss": '),
        losses=like(TOKEN_BITS, statistic="mean"),
        steps=("num_updates", "train_num_updates", "valid_num_updates", "test_num_updates"),
    ),
    "fairseq-stdout": Dialect(
        "lines",
        (("num_updates=", "num_updates "), ("wps=", "wps "), ("loss=", "loss ")),
        losses=like(TOKEN_BITS, statistic="mean"),
    ),
    "timm": Dialect("table", ("epoch,", "train_loss", "eval_top1"), losses=CLASSES),
    "timm-stdout": Dialect(
        "lines", ("Train: ", "Loss: ", "Time: ", "LR: "), {"Loss": CLASSES}, epochs=("Train",)
    ),
    "wandb-history": Dialect("table", ("_step", "_runtime", "_timestamp", "loss")),
    "wandb": Dialect("table", (" - ", "__MIN")),
    "lightning": Dialect("table", ("step", "epoch", ("train_", "val_", "train/", "val/"))),
    "vqgan": Dialect(
        "table",
        ("step", "epoch", ("disc_loss", "discloss", "g_loss"), ("rec_loss", "aeloss", "quant_loss")),
        TOKENIZER,
    ),
    "entropy-cli-train": Dialect(
        "records", ('"step": ', '"psnr_db": ', '"usage": '), losses=like(PIXELS, description="")
    ),
    "var-events": Dialect("events", (("AR_ep_loss/", "AR_iter_loss/"),), {**VAR_SCALES, **VAR_TAGS}),
}
