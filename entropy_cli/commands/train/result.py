"""The files of a training: tokenizer, metrics, the state to resume from, and the result."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from entropy_cli.commands.train.quality import ScaleQuality
from entropy_cli.commands.train.recipe import JSON_KEYS, Recipe
from entropy_cli.core.errors import StateError
from entropy_cli.core.files import remove_leftovers, write_atomically
from entropy_cli.core.reading import LOG_BYTES, read_bytes
from entropy_cli.core.text import columns, definitions
from entropy_cli.tokenizers.checkpoints.checkpoint import open_file, read_contents
from entropy_cli.tokenizers.checkpoints.stored import Stored
from entropy_cli.tokenizers.layers.vqvae import HITS

SCHEMA = "entropy-cli/train"
SCHEMA_VERSION = 1
MODEL, CONFIG, METRICS, TRAINER = "model.safetensors", "config.json", "metrics.jsonl", "trainer.pt"
CHANGEABLE = ("preset", "steps", "warmup", "grad_accum_steps")  # fields that may change on resume
FIGURE, TENSORBOARD = "reconstructions.png", "tensorboard"


@dataclass(frozen=True)
class TrainResult:
    """The result of a training; quality is that of the held-out images.

    Attributes:
        psnr_mean_image_db: PSNR of predicting the training images' mean for each of them.
        checkpoint: path of the tokenizer.
        seconds: time of training, including before it was resumed.
        images: number of images trained on, held out and unreadable.
        settings: the recipe.
        provenance: command, machine, versions.
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
    rows = [["scale", "tokens", "distinct codes", "codebook usage", "of possible", "perplexity"]]
    rows += [
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
    terms = {
        "trained": f"{result.steps} steps of {s['batch_size']} on {images['train']} images of "
        f"{s['image_size']} px{unreadable}, {result.seconds:.0f} s; seed {s['seed']}",
        "computed": f"in {s['precision']} on {result.provenance['device']}",
        "checkpoint": result.checkpoint,
        "figure": str(Path(result.checkpoint).with_name(FIGURE)),
        "of possible": "a scale can't use more codes than it has tokens in these images",
    }
    return "\n".join([*head, "", columns(rows), "", definitions(terms)])


def save_tokenizer(
    folder: Path,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    as_fp16: bool,
) -> None:
    """Write the tokenizer and its config.json atomically; with `as_fp16` weights are float16."""
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    if as_fp16:  # counts and moments may overflow float16
        wide = (HITS, ".running_mean", ".running_var")
        tensors = {name: w if name.endswith(wide) else w.half() for name, w in tensors.items()}
    write_atomically(folder / MODEL, lambda path: save_file(tensors, path))
    text = json.dumps(config, allow_nan=False, indent=1) + "\n"
    write_atomically(folder / CONFIG, lambda path: path.write_text(text))


def save_trainer(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state that a training resumes from."""

    def write(path: Path) -> None:
        try:
            torch.save(dict(state), path)
        except RuntimeError as error:  # a full disk, for example
            raise OSError(0, str(error).splitlines()[0]) from error

    write_atomically(folder / TRAINER, write)


def remove_partial_files(folder: Path) -> None:
    """Remove the leftovers of killed saves; the folder must be locked."""
    for name in (MODEL, CONFIG, METRICS, TRAINER, FIGURE):
        remove_leftovers(folder / name)


def load_trainer(folder: Path, *, resume: bool) -> dict[str, Any] | None:
    """Read the state to resume from, or None without one; no code in it is run.

    Raises:
        StateError: it can't be read, or exists although `resume` is false.
    """
    path = folder / TRAINER
    if path.exists() and not resume:
        raise StateError(
            f"--output {folder}: holds {path.name} of an earlier training. Give --resume to resume it, "
            "or another --output."
        )
    if not path.exists():
        if (folder / MODEL).exists():
            raise StateError(
                f"--output {folder}: holds {MODEL}, but no {TRAINER} to resume from. Give another "
                "--output."
            )
        return None
    try:
        value = _load_tensors(read_contents(open_file(path)).value)
    except Exception as error:
        raise StateError(
            f"{path}: can't be read: {error}. Train again with another --output."
        ) from error
    if not _is_state(value):
        raise StateError(f"{path}: not the state of a training. Give the --output of a training.")
    return value


def _is_state(value: Any) -> bool:  # noqa: ANN401 - any content of a pickle
    """Return whether a value has the parts of a state, of the right types."""
    if not isinstance(value, dict) or not isinstance(trainer := value.get("trainer"), dict):
        return False
    done, seconds = trainer.get("done"), value.get("seconds")
    return (
        isinstance(value.get("recipe"), dict)
        and isinstance(value.get("data"), str)
        and type(done) is int
        and done >= 0
        and isinstance(seconds, int | float)
        and 0 <= seconds < math.inf
    )


def check_resumable(state: Mapping[str, Any], recipe: Recipe, data: str) -> None:
    """Check that recipe and data are those of the state, except for CHANGEABLE fields.

    Raises:
        StateError: they differ.
    """
    values = recipe.to_json()
    for field in fields(recipe):
        key = JSON_KEYS.get(field.name, field.name)
        if field.name not in CHANGEABLE and (was := state["recipe"].get(key)) != values[key]:
            option = f"--{field.name.replace('_', '-')}"
            raise StateError(
                f"--resume: {TRAINER} was trained with {option} {was}, this command has {values[key]}. "
                "Give the same options, or another --output."
            )
    if state["data"] != data:
        raise StateError(
            f"--resume: {TRAINER} was trained on other images. Give the same --data, or another "
            "--output."
        )


def _load_tensors(value: Any) -> Any:  # noqa: ANN401 - any content of a pickle
    """Replace stored tensors by tensors, recursively."""
    if isinstance(value, Stored):
        return value.read().clone()
    if isinstance(value, Mapping):
        return {key: _load_tensors(item) for key, item in value.items()}
    return [_load_tensors(item) for item in value] if isinstance(value, list) else value


def _read_lines(path: Path) -> list[str]:
    try:
        return read_bytes(path, LOG_BYTES).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(
            f"{path}: can't be read: {error}. Remove it, or give another --output."
        ) from error


class MetricsFile:
    """The file metrics.jsonl, a line per entry; lines after the resumed step are dropped."""

    def __init__(self, folder: Path, done: int) -> None:
        path = folder / METRICS
        lines = _read_lines(path) if done and path.exists() else []
        text = "".join(f"{line}\n" for line in lines if _step(line) <= done)
        write_atomically(path, lambda temporary: temporary.write_text(text))
        self._file = path.open("a")

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append an entry."""
        self._file.write(json.dumps(dict(entry), allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _step(line: str) -> float:
    """Return the step of a line; infinity for a partial line, left by a killed process."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return float("inf")
