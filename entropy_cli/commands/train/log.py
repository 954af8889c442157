"""The log of a training: metrics and figures, the text of the progress bar, and warnings."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from entropy_cli.commands.train.quality import Quality, reconstruct_by_scale
from entropy_cli.commands.train.recipe import Recipe
from entropy_cli.commands.train.reconstructions import draw
from entropy_cli.commands.train.result import FIGURE, TENSORBOARD, MetricsFile
from entropy_cli.core.extras import import_extra
from entropy_cli.tokenizers.layers.vqvae import VQVAE

logger = logging.getLogger(__name__)

MIN_USAGE, MIN_PERPLEXITY = 0.1, 2.0  # of the codebook, and of a scale, below which to warn
WARN_AFTER = 0.2  # share of the steps
DRAWN, MAX_SIDE = 8, 128  # images to draw, up to that many pixels on a side; half as many above
HELD_OUT = "held_out_"  # prefix of the metrics of held-out images


class TrainingLog:
    """The log of a training; writes nothing until it is opened, by the first process only.

    Attributes:
        description: the last step's metrics, for the progress bar.
        drawn: number of held-out images to draw.
    """

    def __init__(self, recipe: Recipe, every: int) -> None:
        self.recipe, self.every, self.description = recipe, every, ""
        self.drawn = DRAWN if recipe.image_size <= MAX_SIDE else DRAWN // 2
        self._metrics: MetricsFile | None = None
        self._tensorboard: Any = None
        self._warned: set[str] = set()

    def open(self, folder: Path, done: int, *, tensorboard: bool) -> None:
        """Open the files for writing; `done` is the number of steps taken before."""
        if tensorboard:  # first, as it may not be installed
            self._tensorboard = _summary_writer(folder / TENSORBOARD, done)
        self._folder, self._metrics = folder, MetricsFile(folder, done)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log a step."""
        self.description = (
            f"loss {metrics['loss']:.4f}, PSNR {metrics['psnr_db']:.1f} dB, "
            f"codebook usage {100 * metrics['usage']:.0f} %"
        )
        if metrics["usage"] < MIN_USAGE and self._warns(step):
            self._warn(
                "codebook collapse",
                f"only {100 * metrics['usage']:.1f} % of the codes were used in the last steps. Try "
                "--codebook ema, --init kmeans, --revive-every 10, or a lower --lr",
            )
        if step % self.every == 0 or step == self.recipe.steps:
            self._write(step, metrics)

    def evaluation(self, step: int, quality: Quality, mean_psnr: float) -> None:
        """Log an evaluation on the held-out images."""
        count_V = quality.count_SV.sum(0)
        scales = quality.scales(self.recipe.patch_nums)
        found = {
            "psnr_db": quality.psnr_db,
            "usage": quality.usage(count_V),
            "perplexity": quality.perplexity(count_V),
        }
        for scale in scales:
            found[f"usage_{scale.patch_num}"] = scale.usage
            found[f"perplexity_{scale.patch_num}"] = scale.perplexity
        self._write(step, {f"{HELD_OUT}{name}": value for name, value in found.items()})
        logger.info(
            "step %d: held-out PSNR %.2f dB, codebook usage %.1f %%, perplexity %.1f; by scale %s",
            step,
            found["psnr_db"],
            100 * found["usage"],
            found["perplexity"],
            ", ".join(f"{scale.perplexity:.0f}" for scale in scales),
        )
        if not self._warns(step):
            return
        if quality.psnr_db < mean_psnr:
            self._warn(
                "nothing learned",
                f"held-out PSNR {quality.psnr_db:.2f} dB is below the mean image's {mean_psnr:.2f}. "
                "Try a lower --lr or more --warmup",
            )
        collapsed = [scale.patch_num for scale in scales if scale.perplexity < MIN_PERPLEXITY]
        if collapsed:
            self._warn(
                "uninformative scales",
                f"perplexity below {MIN_PERPLEXITY:g} at {', '.join(f'{n} x {n}' for n in collapsed)}: "
                "nearly all tokens there have the same code",
            )

    def draw(self, model: VQVAE, x_B3HW: Tensor) -> None:
        """Draw held-out images beside their reconstructions."""
        recon_S = reconstruct_by_scale(model, x_B3HW)
        draw(self._folder / FIGURE, x_B3HW, recon_S, self.recipe.patch_nums)

    def diverged(self, step: int) -> None:
        """Log a step that diverged and was not taken."""
        self._write(step, {"diverged": 1})

    def close(self) -> None:
        """Close the files."""
        if self._metrics is not None:
            self._metrics.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _warns(self, step: int) -> bool:
        return step >= WARN_AFTER * self.recipe.steps

    def _warn(self, kind: str, message: str) -> None:
        """Warn once for each kind."""
        if self._metrics is not None and kind not in self._warned:
            self._warned.add(kind)
            logger.warning("%s: %s", kind, message)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if self._metrics is not None:
            self._metrics.write({"step": step, **values})
        if self._tensorboard is not None:
            for name, value in values.items():
                held_out = name.startswith(HELD_OUT)
                tag = f"held_out/{name.removeprefix(HELD_OUT)}" if held_out else f"train/{name}"
                self._tensorboard.add_scalar(tag, value, step)


def _summary_writer(folder: Path, done: int) -> Any:  # noqa: ANN401 - the extra has no types
    module = import_extra("torch.utils.tensorboard", "tensorboard", "--tensorboard")
    return module.SummaryWriter(str(folder), purge_step=done + 1 if done else None)
