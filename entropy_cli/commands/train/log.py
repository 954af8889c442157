"""What the user watches of a training: files that grow, a line that changes, and warnings."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from entropy_cli.commands.train.quality import Quality, grown
from entropy_cli.commands.train.recipe import Recipe
from entropy_cli.commands.train.reconstructions import draw
from entropy_cli.commands.train.result import PICTURE, TENSORBOARD, Metrics
from entropy_cli.core.extras import import_extra
from entropy_cli.tokenizers.layers.vqvae import VQVAE

logger = logging.getLogger(__name__)

COLLAPSED, LONE_CODE = 0.1, 2.0  # usage, and perplexity of a scale, below which to warn
WATCHED_FROM = 0.2  # of the steps
SHOWN, SMALL = 8, 128  # pictures, if they have so many pixels on a side
HELD_OUT = "held_out_"  # before the names of what is of held-out pictures


class TrainingLog:
    """Silent until it is opened, which only the first process does.

    Attributes:
        words: the last step's, for a progress bar.
        shown: how many held-out pictures are drawn.
    """

    def __init__(self, recipe: Recipe, every: int) -> None:
        self.recipe, self.every, self.words = recipe, every, ""
        self.shown = SHOWN if recipe.image_size <= SMALL else SHOWN // 2
        self._metrics: Metrics | None = None
        self._board: Any = None
        self._warned: set[str] = set()

    def open(self, folder: Path, done: int, *, tensorboard: bool) -> None:
        """Begin to write, after the steps that are done already."""
        if tensorboard:  # first, as it may not be installed
            self._board = _tensorboard(folder / TENSORBOARD, done)
        self._folder, self._metrics = folder, Metrics(folder, done)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """A step is done."""
        self.words = (
            f"loss {metrics['loss']:.4f}, PSNR {metrics['psnr_db']:.1f} dB, "
            f"codes used {100 * metrics['usage']:.0f} %"
        )
        if metrics["usage"] < COLLAPSED and self._watched(step):
            self._warn(
                "codebook collapse",
                f"only {100 * metrics['usage']:.1f} % of the codes were used in the last steps. Try "
                "--codebook ema, --init kmeans, --revive-every 10, or a lower --lr",
            )
        if step % self.every == 0 or step == self.recipe.steps:
            self._write(step, metrics)

    def evaluation(self, step: int, quality: Quality, mean_psnr: float) -> None:
        """The held-out pictures were looked at."""
        total_V = quality.count_SV.sum(0)
        scales = quality.scales(self.recipe.patch_nums)
        found = {
            "psnr_db": quality.psnr_db,
            "usage": quality.usage(total_V),
            "perplexity": quality.perplexity(total_V),
        }
        for scale in scales:
            found[f"usage_{scale.patch_num}"] = scale.usage
            found[f"perplexity_{scale.patch_num}"] = scale.perplexity
        self._write(step, {f"{HELD_OUT}{name}": value for name, value in found.items()})
        logger.info(
            "step %d: held-out PSNR %.2f dB, codes used %.1f %%, perplexity %.1f; by scale %s",
            step,
            found["psnr_db"],
            100 * found["usage"],
            found["perplexity"],
            ", ".join(f"{scale.perplexity:.0f}" for scale in scales),
        )
        if not self._watched(step):
            return
        if quality.psnr_db < mean_psnr:
            self._warn(
                "nothing learned",
                f"held-out PSNR {quality.psnr_db:.2f} dB is below the mean picture's {mean_psnr:.2f}. "
                "Try a lower --lr or more --warmup",
            )
        lone = [scale.patch_num for scale in scales if scale.perplexity < LONE_CODE]
        if lone:
            self._warn(
                "scales that say nothing",
                f"perplexity below {LONE_CODE:g} at {', '.join(f'{n} x {n}' for n in lone)}: nearly all "
                "pictures have the same code there",
            )

    def picture(self, model: VQVAE, x_B3HW: Tensor) -> None:
        """Draw held-out pictures beside their reconstructions."""
        draw(self._folder / PICTURE, x_B3HW, grown(model, x_B3HW), self.recipe.patch_nums)

    def diverged(self, step: int) -> None:
        """A step was not taken."""
        self._write(step, {"diverged": 1})

    def close(self) -> None:
        """Nothing more to write."""
        if self._metrics is not None:
            self._metrics.close()
        if self._board is not None:
            self._board.close()

    def _watched(self, step: int) -> bool:
        return step >= WATCHED_FROM * self.recipe.steps

    def _warn(self, what: str, words: str) -> None:
        """Once for each kind."""
        if self._metrics is not None and what not in self._warned:
            self._warned.add(what)
            logger.warning("%s: %s", what, words)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if self._metrics is not None:
            self._metrics.write({"step": step, **values})
        if self._board is not None:
            for name, value in values.items():
                held_out = name.startswith(HELD_OUT)
                tag = f"held_out/{name.removeprefix(HELD_OUT)}" if held_out else f"train/{name}"
                self._board.add_scalar(tag, value, step)


def _tensorboard(folder: Path, done: int) -> Any:  # noqa: ANN401 - the extra has no types
    board = import_extra("torch.utils.tensorboard", "tensorboard", "--tensorboard")
    return board.SummaryWriter(str(folder), purge_step=done + 1 if done else None)
