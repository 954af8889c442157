"""The files of a training: tokenizer, metrics, the state to resume from, and the result."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from entropy_cli.commands.train.quality import ScaleQuality
from entropy_cli.core.files import remove_leftovers, write_atomically
from entropy_cli.core.table import Table, definitions, wrapped
from entropy_cli.tokenizers.layers.vqvae import HITS

SCHEMA = "entropy-cli/train"
SCHEMA_VERSION = 1
MODEL, CONFIG, METRICS, TRAINER = "model.safetensors", "config.json", "metrics.jsonl", "trainer.pt"
FIGURE, TENSORBOARD = "reconstructions.png", "tensorboard"


@dataclass(frozen=True)
class TrainResult:
    """The result of a training; quality is that of the held-out images.

    Attributes:
        psnr_mean_image_db: PSNR of predicting the training images' mean for each of them.
        seconds: time of training, with k-means, evaluations and figures, and before it was resumed.
        images: number of images trained on, held out and unreadable.
        settings: the recipe.
    """

    steps: int
    psnr_db: float
    psnr_mean_image_db: float
    usage: float
    perplexity: float
    scales: list[ScaleQuality]
    checkpoint: str
    seconds: float
    images: dict[str, int]
    settings: dict[str, Any]
    provenance: dict[str, Any]

    def to_json(self) -> str:
        """Return the result as JSON text."""
        content = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps(content, allow_nan=False, indent=1)


def render(result: TrainResult) -> str:
    """Render the headline, a row for each scale, and the settings and files."""
    above = result.psnr_db - result.psnr_mean_image_db
    head = [
        f"PSNR {result.psnr_db:.2f} dB on {result.images['held_out']} held-out images, {above:.2f} dB "
        f"above the mean image's {result.psnr_mean_image_db:.2f}",
        f"codebook usage {100 * result.usage:.1f} %, perplexity {result.perplexity:.1f} "
        f"of {result.settings['vocab_size']}",
    ]
    rows = [
        [
            f"{scale.patch_num} x {scale.patch_num}",
            str(scale.tokens),
            str(scale.codes_used),
            f"{100 * scale.usage:.1f} %",
            f"{100 * scale.usage_of_possible:.1f} %",
            f"{scale.perplexity:.1f}",
        ]
        for scale in result.scales
    ]
    s, images = result.settings, result.images
    unreadable = f", {images['failed']} unreadable" if images["failed"] else ""
    number = result.provenance["processes"]
    processes = f"{number} process{'es' if number > 1 else ''}"
    terms = {
        "trained": f"{result.steps} steps of {s['batch_size']} on {images['train']} images of "
        f"{s['image_size']} px{unreadable}, {result.seconds:.0f} s; seed {s['seed']}",
        "computed": f"in {s['precision']} on {result.provenance['device']}, by {processes}",
        "checkpoint": result.checkpoint,
        "figure": str(Path(result.checkpoint).with_name(FIGURE)),
        "of possible": "a scale can't use more codes than it has tokens in these images",
    }
    names = ["scale", "tokens", "distinct codes", "codebook usage", "of possible", "perplexity"]
    table = Table("scales", "", names, rows)
    lines = (wrapped("", line) for line in head)
    return "\n".join([*lines, "", table.text(), "", definitions(terms)])


def save_tokenizer(
    folder: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any], *, as_fp16: bool
) -> None:
    """Write the tokenizer and its config.json atomically; with `as_fp16` weights are float16."""
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    if as_fp16:  # counts and moments may overflow float16
        wide = (HITS, ".running_mean", ".running_var")
        tensors = {name: w if name.endswith(wide) else w.half() for name, w in tensors.items()}
    write_atomically(folder / MODEL, lambda path: save_file(tensors, path), announced=False)
    text = json.dumps(config, allow_nan=False, indent=1) + "\n"
    write_atomically(folder / CONFIG, lambda path: path.write_text(text), announced=False)


def remove_partial_files(folder: Path) -> None:
    """Remove the leftovers of killed saves; the folder must be locked."""
    for name in (MODEL, CONFIG, METRICS, TRAINER, FIGURE):
        remove_leftovers(folder / name)
