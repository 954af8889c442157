"""Readers of what LlamaGen, nanoGPT and its descendants, I-JEPA and V-JEPA print.

Source:
    FoundationVision/LlamaGen: autoregressive/train/train_c2i.py, tokenizer/tokenizer_image/vq_train.py.
    karpathy/nanoGPT: train.py; karpathy/build-nanogpt: train_gpt2.py; KellerJordan/modded-nanogpt.
    facebookresearch/ijepa and vjepa2: src/train.py, app/vjepa/train.py.
"""

import re
from collections.abc import Iterator

from entropy_cli.commands.monitor.logs.series import RESTART, Metric, Row
from entropy_cli.commands.monitor.logs.text import NUMBER

CROSS_ENTROPY = Metric("Train Loss", kind="cross_entropy", description="mean since the previous line")
SUMMED = Metric(
    "Train Loss",
    has_floor=False,
    description="sum of generator and discriminator losses, not a cross-entropy",
)
LLAMAGEN = re.compile(rf"\(step=(\d+)\) Train Loss: ({NUMBER}),")
LLAMAGEN_START = re.compile(r"Training for \d+ epochs")

TRAIN = Metric("train loss", kind="cross_entropy")
VAL = Metric("val loss", "val", "cross_entropy")
MICRO_BATCH = Metric("loss", kind="cross_entropy", description="loss of a single batch")
HELLASWAG = Metric("hella", "val", "accuracy", description="HellaSwag accuracy, as a fraction")
PREFIX = r"^(?:[^a-z\n]*[\s:])?"  # ranks and times that launchers prepend
EVALUATED = re.compile(
    rf"{PREFIX}step (\d+): train loss (\S+), val loss (nan|inf|\d+\.\d{{4}})$", re.MULTILINE
)
ITERATED = re.compile(rf"{PREFIX}iter (\d+): loss ({NUMBER}),", re.MULTILINE)
NAMED = re.compile(r"^(\d+) (train|val|hella) (nan|inf|\d+\.\d{4,6})$", re.MULTILINE)
MODDED = re.compile(rf"^step:(\d+)/\d+ (train|val)_loss:({NUMBER}) ", re.MULTILINE)
NANOGPT = re.compile("|".join(f"(?:{p.pattern})" for p in (EVALUATED, ITERATED, NAMED, MODDED)), re.M)

JEPA_LOSS = Metric("loss", is_proxy=True, description="running mean of the epoch")
JEPA = re.compile(rf"\[(\d+), +(\d+)\] +loss: ({NUMBER})(?= )")


def read_llamagen(text: str) -> Iterator[Row]:
    """Read what LlamaGen prints when it trains a generator or a tokenizer; DiT prints the same."""
    metric = SUMMED if "(Generator)" in text else CROSS_ENTROPY
    for line in text.split("\n"):
        if match := LLAMAGEN.search(line):
            yield Row(None, float(match[1]), {metric: float(match[2])})
        elif LLAMAGEN_START.search(line):
            yield RESTART


def read_nanogpt(text: str) -> Iterator[Row]:
    """Read what nanoGPT prints, and the log files of its descendants."""
    metrics = {"train": TRAIN, "val": VAL, "hella": HELLASWAG}
    for line in text.split("\n"):
        if match := EVALUATED.match(line):
            yield Row(None, float(match[1]), {TRAIN: float(match[2]), VAL: float(match[3])})
        elif match := ITERATED.match(line):
            yield Row(None, float(match[1]), {MICRO_BATCH: float(match[2])})
        elif match := NAMED.match(line) or MODDED.match(line + " "):
            yield Row(None, float(match[1]), {metrics[match[2]]: float(match[3])})


def read_jepa(text: str) -> Iterator[Row]:
    """Read what I-JEPA and V-JEPA print."""
    for line in text.split("\n"):
        if match := JEPA.search(line):
            yield Row(float(match[1]), float(match[2]), {JEPA_LOSS: float(match[3])})
