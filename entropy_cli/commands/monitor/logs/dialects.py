"""The table of dialects: what each program prints or writes, one row each.

Source:
    FoundationVision/VAR and Infinity: train.py, trainer.py, utils/misc.py, utils/arg_util.py.
    FoundationVision/LlamaGen: autoregressive/train/train_c2i.py, tokenizer/tokenizer_image/vq_train.py;
    facebookresearch/DiT: train.py.
    karpathy/nanoGPT: train.py; build-nanogpt: train_gpt2.py; minGPT: projects/chargpt/chargpt.py; llm.c:
    train_gpt2.cu, llmc/logger.h; KellerJordan/modded-nanogpt: train_gpt2.py.
    pytorch/torchtitan: torchtitan/components/metrics.py; NVIDIA/Megatron-LM: megatron/training.
    facebookresearch/ijepa, jepa, vjepa2: src/train.py, src/utils/logging.py, app/vjepa/train.py; mae:
    main_pretrain.py; fairseq: fairseq/logging/progress_bar.py; microsoft/unilm: beit.
    huggingface/transformers: src/transformers/trainer.py; huggingface/pytorch-image-models: train.py.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from entropy_cli.commands.monitor.logs import dialect as of
from entropy_cli.commands.monitor.logs.dialect import ACCURACY, TOKENS, Dialect, like
from entropy_cli.commands.monitor.logs.series import Metric

PIXELS_PER_TOKEN, MAX_SIDE = 16, 64  # of VAR's tokenizer

BEST = "running maximum: the log has no accuracy of the current epoch"
SINCE = "mean since the previous line"
LM = like(TOKENS, "Lm", scope="mean", description="mean over all tokens")
LT = like(TOKENS, "Lt", scope="last", description="mean over the final scale")
ACCM = like(ACCURACY, "Accm", scope="mean", description=BEST, statistic="best")
ACCT = like(ACCURACY, "Acct", scope="last", description=BEST, statistic="best")
BIT = "of the bits of a token, per bit: an untrained model has ln 2 = 0.693"
BIT_LM = like(of.CODE_BITS, "Lm", scope="mean", description=f"mean cross-entropy {BIT}")
BIT_LT = like(of.CODE_BITS, "Lt", scope="last", description=f"cross-entropy of the final scale, {BIT}")
BIT_ACC = like(
    ACCURACY, description="percent of the bits that are right, the most so far", statistic="best"
)

VAR_MEANS: Mapping[str, Metric] = {
    f"{v}{name}_{tokens}": like(kind, split="val" if v else "train", scope=scope)
    for v in ("", "v")
    for name, kind in (("L", TOKENS), ("acc", ACCURACY))
    for tokens, scope in (("mean", "mean"), ("tail", "last"))
}
VAR_TAGS: Mapping[str, Metric] = {
    **VAR_MEANS,
    **{
        f"{name}_{PIXELS_PER_TOKEN * side}": like(kind, scope=side)
        for side in range(1, MAX_SIDE + 1)
        for name, kind in (("L", TOKENS), ("acc", ACCURACY))
    },
}
OF_GPT: Mapping[str, Metric] = {
    **dict.fromkeys(("loss", "train loss", "train_loss", "train", "trl"), like(TOKENS, "train loss")),
    **dict.fromkeys(
        ("val loss", "val_loss", "validation loss", "val", "tel"), like(TOKENS, "val loss", split="val")
    ),
    **dict.fromkeys(
        ("HellaSwag", "HellaSwag accuracy", "hella", "eval"),
        like(ACCURACY, split="val", description="HellaSwag accuracy, as a fraction"),
    ),
    "norm": of.GRADIENT,
}
VAR = Dialect(
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
        **dict.fromkeys(("L1", "NLL", "Nll"), of.PIXELS),
        "Ld": of.ADVERSARY,
    },
    brackets="worse",
    unplaced="none",
    starts="=> initial args:",
    placeholders=(-1, 999),
)
LLAMAGEN = Dialect(
    "lines",
    ("(step=", "Train Loss: ", "Train Steps/Sec"),
    {"Train Loss": like(TOKENS, description=SINCE, statistic="mean")},
    starts="Training for ",
    first=(2.0, math.inf),  # below any cross-entropy of codes that LlamaGen reached
)
MAE = ('"train_loss": ', '"train_lr": ', '"epoch": ')

DIALECTS: Mapping[str, Dialect] = {
    "var": VAR,
    "infinity": replace(
        VAR,
        signs=(*VAR.signs[:1], ("Lm: ", "Lmean: "), ("dataT: ", "Lmean: ")),
        names={
            **dict.fromkeys(("Lm", "Lmean"), BIT_LM),
            **dict.fromkeys(("Lt", "Ltail"), BIT_LT),
            "Accm": like(BIT_ACC, "Accm"),
            "Acct": like(BIT_ACC, "Acct"),
            "Acc m-t": (like(BIT_ACC, "Accm"), like(BIT_ACC, "Acct")),
        },
    ),
    "var-log-txt": Dialect(
        "records",
        (("'it': ", "'L_mean': "), "'ep': ", ("'L_mean': ", "'L_tail': ")),
        {**VAR_MEANS, "grad_norm": like(of.GRADIENT, "tnm")},
        ignored=("it", "iter"),
        starts='"is_master"',
        placeholders=(-1,),
    ),
    "llamagen": LLAMAGEN,
    "llamagen-tokenizer": replace(
        LLAMAGEN,
        signs=(*LLAMAGEN.signs, ("(Generator)", "(Discriminator)")),
        names={
            "Train Loss": like(of.SUM, description="of generator and discriminator: no cross-entropy")
        },
        unplaced="next",
        first=of.ANY,
    ),
    "dit": replace(LLAMAGEN, names={"Train Loss": of.NOISE}, first=of.ANY),
    "nanogpt": Dialect(
        "lines",
        (("iter ", "step "), (": loss ", ": train loss "), (", mfu ", ", val loss ")),
        {**OF_GPT, "loss": like(TOKENS, description="loss of a single batch")},
    ),
    "build-nanogpt": Dialect(
        "lines", ("step ", "| loss: ", "| norm: ", "| tok/sec: "), OF_GPT, unplaced="next"
    ),
    "build-nanogpt-log": Dialect(
        "lines",
        ((" train ", " val "), ("\n1 ", "\n10 ", "\n50 ", "\n100 ", "\n250 ", "\n500 ", "\n1000 ")),
        OF_GPT,
    ),
    "modded-nanogpt": Dialect(  # begins with the program's source
        "lines", ("step:", ("train_loss:", "val_loss:"), "train_time:"), OF_GPT, unplaced="none"
    ),
    "mingpt": Dialect("lines", ("iter_dt ", "; iter ", ": train loss "), OF_GPT),
    "llm.c": Dialect("lines", ("step ", "loss ", " ms", " tok/s"), OF_GPT),
    "llm.c-log": Dialect("lines", ("s:", (" trl:", " tel:")), OF_GPT, steps=("s",)),
    "torchtitan": Dialect(
        "lines", ("step: ", "loss: ", "tps: ", ("tflops: ", "memory: ")), {"loss": TOKENS}
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
        },
    ),
    "jepa": Dialect(
        "lines",
        ("] loss: ", ("input_var: ", "masks: ", "[wd: ", "[mem: ")),
        {
            "loss": like(of.LATENTS, description="running mean of the epoch", statistic="mean"),
            "avg. loss": None,
        },
    ),
    "ijepa-csv": Dialect("table", ("epoch,itr,loss,mask-A",), losses=of.LATENTS),
    "vjepa-csv": Dialect("table", ("epoch,itr,loss",), losses=of.LATENTS),
    "huggingface": Dialect("document", ('"log_history"',), losses=TOKENS),
    "huggingface-stdout": Dialect(
        "records", ("'loss': ", "'learning_rate': ", "'epoch': "), losses=TOKENS
    ),
    "mae": Dialect(
        "records",
        MAE,
        {
            "train_loss": like(
                of.NOISE, description="MAE: of pixels, MAR: of diffusion; no cross-entropy"
            )
        },
        first=(-math.inf, 2.0),  # above, it is of another program that logs as MAE does
    ),
    "mae-finetune": Dialect("records", (*MAE, '"test_acc1": '), losses=of.CLASSES),
    "beit": Dialect("records", (*MAE, '"train_mlm_acc": '), losses=TOKENS),
    "fairseq": Dialect(
        "records",
        ('num_updates": ', '"epoch": ', 'loss": '),
        losses=like(of.TOKEN_BITS, statistic="mean"),
        steps=("num_updates", "train_num_updates", "valid_num_updates", "test_num_updates"),
    ),
    "fairseq-stdout": Dialect(
        "lines",
        (("num_updates=", "num_updates "), ("wps=", "wps "), ("loss=", "loss ")),
        losses=like(of.TOKEN_BITS, statistic="mean"),
    ),
    "timm": Dialect("table", ("epoch,", "train_loss", "eval_top1"), losses=of.CLASSES),
    "timm-stdout": Dialect(
        "lines", ("Train: ", "Loss: ", "Time: ", "LR: "), {"Loss": of.CLASSES}, epochs=("Train",)
    ),
    "wandb-history": Dialect("table", ("_step", "_runtime", "_timestamp", "loss"), VAR_TAGS),
    "wandb": Dialect("table", (" - ", "__MIN"), VAR_TAGS),
    "lightning": Dialect("table", ("step", "epoch", ("train_", "val_", "train/", "val/"))),
    "vqgan": Dialect(
        "table",
        ("step", "epoch", ("disc_loss", "discloss", "g_loss"), ("rec_loss", "aeloss", "quant_loss")),
    ),
    "entropy-cli-train": Dialect(
        "records", ('"step": ', '"psnr_db": ', '"usage": '), losses=like(of.PIXELS, description="")
    ),
    "var-events": Dialect("events", (("AR_ep_loss/", "AR_iter_loss/"),), VAR_TAGS),
}
