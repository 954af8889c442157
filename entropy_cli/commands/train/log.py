"""The log of a training: metrics and figures, the text of the progress bar, and warnings."""

import contextlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from entropy_cli.commands.train.codebook import RECENT_STEPS
from entropy_cli.commands.train.quality import Quality
from entropy_cli.commands.train.recipe import Recipe
from entropy_cli.commands.train.reconstructions import draw_reconstructions
from entropy_cli.commands.train.result import FIGURE, METRICS, TENSORBOARD
from entropy_cli.core.errors import StateError
from entropy_cli.core.extras import import_extra
from entropy_cli.core.files import write_atomically
from entropy_cli.core.reading import LOG_BYTES, OpenFile, read_bytes
from entropy_cli.tokenizers.layers.vqvae import VQVAE

logger = logging.getLogger(__name__)

MIN_USAGE, MIN_PERPLEXITY = 0.1, 2.0  # of the codebook, and of a scale, below which to warn
WARN_AFTER = 0.2  # share of the steps
DRAWN, MAX_SIDE = 8, 128  # images to draw, up to that many pixels on a side; half as many above
TENSORBOARD_EXTRA = "torch.utils.tensorboard", "tensorboard", "--tensorboard"
FIRST_BYTES = 10_000  # that hold the first line
HELD_OUT = "held_out_"  # prefix of the metrics of held-out images


class TrainingLog:
    """The log of a training; without a folder, as in all processes but the first, it writes nothing.

    Attributes:
        description: the last step's metrics, for the progress bar.
    """

    def __init__(
        self, recipe: Recipe, every: int, folder: Path | None, done: int, *, tensorboard: bool
    ) -> None:
        self.recipe, self.every, self.folder, self.description = recipe, every, folder, ""
        self._warned: set[str] = set()
        self._metrics: Any = None
        self._tensorboard: Any = None
        if folder is not None:
            if tensorboard:
                module = import_extra(*TENSORBOARD_EXTRA)
                purge_step = done + 1 if done else None
                self._tensorboard = module.SummaryWriter(
                    str(folder / TENSORBOARD), purge_step=purge_step
                )
            _drop_later_lines(folder / METRICS, done)
            self._metrics = (folder / METRICS).open("a")

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log a step."""
        self.description = (
            f"loss {metrics['loss']:.4f}, PSNR {metrics['psnr_db']:.1f} dB, "
            f"{100 * metrics['usage']:.0f} % of codes used in {RECENT_STEPS} steps"
        )
        if metrics["usage"] < MIN_USAGE:
            self._warn(
                step,
                "codebook collapse",
                f"only {100 * metrics['usage']:.1f} % of the codes were used in {RECENT_STEPS} "
                "steps. Try --codebook ema, --init kmeans, --revive-every 10, or a lower --lr",
            )
        if step % self.every == 0 or step == self.recipe.steps:
            self.write(step, metrics)

    def evaluation(self, step: int, quality: Quality, mean_psnr: float) -> None:
        """Log an evaluation on the held-out images."""
        total, scales = quality.total, quality.scales(self.recipe.patch_nums)
        found = {"psnr_db": quality.psnr_db, "usage": total.usage, "perplexity": total.perplexity}
        for scale in scales:
            found[f"usage_{scale.patch_num}"] = scale.usage
            found[f"perplexity_{scale.patch_num}"] = scale.perplexity
        self.write(step, {f"{HELD_OUT}{name}": value for name, value in found.items()})
        logger.info(
            "step %d: held-out PSNR %.2f dB, codebook usage %.1f %%, perplexity %.1f; by scale %s",
            step,
            quality.psnr_db,
            100 * total.usage,
            total.perplexity,
            ", ".join(f"{scale.perplexity:.0f}" for scale in scales),
        )
        if quality.psnr_db < mean_psnr:
            self._warn(
                step,
                "nothing learned",
                f"held-out PSNR {quality.psnr_db:.2f} dB is below the mean image's {mean_psnr:.2f}. "
                "Try a lower --lr or more --warmup",
            )
        collapsed = [scale.patch_num for scale in scales if scale.perplexity < MIN_PERPLEXITY]
        if collapsed:
            self._warn(
                step,
                "uninformative scales",
                f"perplexity below {MIN_PERPLEXITY:g} at {', '.join(f'{n} x {n}' for n in collapsed)}: "
                "nearly all tokens there have the same code",
            )

    def draw(self, model: VQVAE, x_B3HW: Tensor) -> None:
        """Draw the first held-out images beside their reconstructions."""
        if self.folder is not None:
            drawn = DRAWN if self.recipe.image_size <= MAX_SIDE else DRAWN // 2
            draw_reconstructions(self.folder / FIGURE, model, x_B3HW[:drawn])

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write a line of metrics."""
        if self._metrics is not None:
            self._metrics.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")
            self._metrics.flush()
        if self._tensorboard is not None:
            for name, value in values.items():
                part = "held_out" if name.startswith(HELD_OUT) else "train"
                self._tensorboard.add_scalar(f"{part}/{name.removeprefix(HELD_OUT)}", value, step)

    def close(self) -> None:
        """Close the files."""
        for file in filter(None, (self._metrics, self._tensorboard)):
            file.close()

    def _warn(self, step: int, kind: str, message: str) -> None:
        """Warn once for each kind, and not in the first steps."""
        early = step < WARN_AFTER * self.recipe.steps
        if self.folder is not None and not early and kind not in self._warned:
            self._warned.add(kind)
            logger.warning("%s: %s", kind, message)


def _drop_later_lines(path: Path, done: int) -> None:
    """Keep only the lines up to the resumed step; none in a new training."""
    try:
        text = read_bytes(path, LOG_BYTES).decode("utf-8") if done and path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(
            f"{path}: can't be read: {error}. Remove it, or give another --output."
        ) from error
    kept = "".join(f"{line}\n" for line in text.splitlines() if _step(line) <= done)
    write_atomically(path, lambda temporary: temporary.write_text(kept), announced=False)


def is_begun(path: Path) -> bool:
    """Return whether a file is empty, or the metrics of a training that had not saved anything yet."""
    file = OpenFile(path)
    head = bytes(file.read(0, min(file.size, FIRST_BYTES)))
    with contextlib.suppress(ValueError, RecursionError):
        first = json.loads(head.partition(b"\n")[0])
        return isinstance(first, dict) and {"step", "commitment", "revived"} <= first.keys()
    return not head


def _step(line: str) -> float:
    """Return the step of a line; infinity for a partial line, left by a killed process."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return float("inf")
