"""Logs that other programs print, line by line.

Source:
    FoundationVision/LlamaGen: autoregressive/train/train_c2i.py, tokenizer/tokenizer_image/vq_train.py.
    karpathy/nanoGPT: train.py; karpathy/build-nanogpt: train_gpt2.py; KellerJordan/modded-nanogpt.
    facebookresearch/ijepa and vjepa2: src/train.py, app/vjepa/train.py.
"""

import re
from collections.abc import Iterator

from entropy_cli.commands.monitor.logs.series import MARK, Metric, Row
from entropy_cli.commands.monitor.logs.text import NUMBER

CROSS_ENTROPY = Metric("Train Loss", kind="cross_entropy", words="mean since the line before")
SUMMED = Metric(
    "Train Loss", has_floor=False, words="generator and discriminator added up, no cross-entropy"
)
LLAMAGEN = re.compile(rf"\(step=(\d+)\) Train Loss: ({NUMBER}),")
LLAMAGEN_START = re.compile(r"Training for \d+ epochs")
GENERATOR = re.compile(rf"\(Generator\)|\b(rec_loss|perceptual_loss|vq_loss|commit_loss): ({NUMBER}),")

TRAIN = Metric("train loss", kind="cross_entropy")
VAL = Metric("val loss", "val", "cross_entropy")
MICRO_BATCH = Metric("loss", kind="cross_entropy", words="one batch each")
HELLASWAG = Metric("hella", "val", "accuracy", words="HellaSwag, share of 1")
BEFORE = r"^(?:[^a-z\n]*[\s:])?"  # ranks and times that launchers put there
EVALUATED = re.compile(
    rf"{BEFORE}step (\d+): train loss (\S+), val loss (nan|inf|\d+\.\d{{4}})$", re.MULTILINE
)
ITERATED = re.compile(rf"{BEFORE}iter (\d+): loss ({NUMBER}),", re.MULTILINE)
NAMED = re.compile(r"^(\d+) (train|val|hella) (nan|inf|\d+\.\d{4,6})$", re.MULTILINE)
MODDED = re.compile(rf"^step:(\d+)/\d+ (train|val)_loss:({NUMBER}) ", re.MULTILINE)
NANOGPT = re.compile("|".join(f"(?:{p.pattern})" for p in (EVALUATED, ITERATED, NAMED, MODDED)), re.M)

JEPA_LOSS = Metric("loss", is_proxy=True, words="mean of the epoch so far")
JEPA = re.compile(rf"\[(\d+), +(\d+)\] +loss: ({NUMBER})(?= )")


def read_llamagen(text: str) -> Iterator[Row]:
    """What LlamaGen prints, for codes and for its tokenizer; DiT prints the same."""
    metric = SUMMED if "(Generator)" in text else CROSS_ENTROPY
    for line in text.split("\n"):
        if found := LLAMAGEN.search(line):
            yield Row(None, float(found[1]), {metric: float(found[2])})
        elif LLAMAGEN_START.search(line):
            yield MARK


def read_nanogpt(text: str) -> Iterator[Row]:
    """What nanoGPT prints, and the log files of its descendants."""
    kinds = {"train": TRAIN, "val": VAL, "hella": HELLASWAG}
    for line in text.split("\n"):
        if found := EVALUATED.match(line):
            yield Row(None, float(found[1]), {TRAIN: float(found[2]), VAL: float(found[3])})
        elif found := ITERATED.match(line):
            yield Row(None, float(found[1]), {MICRO_BATCH: float(found[2])})
        elif found := NAMED.match(line) or MODDED.match(line + " "):
            yield Row(None, float(found[1]), {kinds[found[2]]: float(found[3])})


def read_jepa(text: str) -> Iterator[Row]:
    """What I-JEPA and V-JEPA print."""
    for line in text.split("\n"):
        if found := JEPA.search(line):
            yield Row(float(found[1]), float(found[2]), {JEPA_LOSS: float(found[3])})
