"""The recipe of a training: every setting that changes the result, and the learning rates."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from entropy_cli.tokenizers.layers.var_layout import VARSizes

RESTART_UNTIL = 0.8  # share of the steps with restarts of dead codes; then the codes settle
STAGES, STAGE_FACTOR = (2 / 3, 8 / 9), 0.1  # of the schedule "staged", as shares of the steps
# Keys in files that differ from the field's name, as in version 0.1.
JSON_KEYS = {
    "codebook_decay": "decay",
    "ema_decay": "average",
    "grad_accum_steps": "accumulate",
    "grad_clip": "clip",
}


@dataclass(frozen=True)
class Recipe:
    """The settings of a training; numbers of images are over all processes.

    Attributes:
        width, width_mult, blocks, latent_dim, vocab_size: see `VARSizes`.
        image_size: pixels on a side.
        patch_nums: side of each scale's grid.
        lr, final_lr: peak learning rate, and the final one as a share of it.
        warmup: steps of linear warm-up.
        schedule: after the warm-up: cosine, or a tenth from 2/3 of the steps on and again from 8/9.
        grad_clip: maximum norm of the gradient; 0 for no limit.
        l1, l2: weights of the reconstruction losses, for pixels in [-1, 1].
        beta: weight of the commitment loss.
        codebook: codes are moving averages of the vectors assigned to them, or trained by gradient.
        codebook_decay: decay of those averages, and of the counts in both cases.
        init: initial codes: k-means of the first residuals, or uniform in +-1/V.
        revive_every: steps between replacements of dead codes by vectors; 0 for never.
        grad_accum_steps: micro-batches per step, computed one after the other.
        ema_decay: decay of the averaged weights that are saved and evaluated; 0 for none.
        precision: of convolutions and attention.
    """

    preset: str
    steps: int
    batch_size: int
    width: int
    width_mult: tuple[int, ...]
    blocks: int
    latent_dim: int
    vocab_size: int
    image_size: int
    patch_nums: tuple[int, ...]
    lr: float
    warmup: int
    codebook_decay: float
    ema_decay: float
    final_lr: float = 0.05
    norm: Literal["group", "batch"] = "group"
    schedule: Literal["cosine", "staged"] = "cosine"
    weight_decay: float = 0.005
    grad_clip: float = 1.0
    l1: float = 0.2
    l2: float = 1.0
    beta: float = 0.25
    codebook: Literal["ema", "gradient"] = "ema"
    init: Literal["kmeans", "uniform"] = "kmeans"
    revive_every: int = 10
    grad_accum_steps: int = 1
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    seed: int = 0

    @property
    def sizes(self) -> VARSizes:
        """The sizes of the model."""
        phis = min(4, len(self.patch_nums))  # a phi that no scale uses would not be trained
        return VARSizes(self.width, self.width_mult, self.blocks, self.latent_dim, self.vocab_size, phis)

    @property
    def downsampling(self) -> int:
        """The number of pixels on the side of one latent."""
        return 2 ** (len(self.width_mult) - 1)

    def override(self, **fields: Any) -> "Recipe":  # noqa: ANN401 - values of its fields
        """Return the recipe with other values of some fields; None keeps the field."""
        return replace(self, **{name: value for name, value in fields.items() if value is not None})

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain values, by their keys in files."""
        values = {JSON_KEYS.get(f.name, f.name): getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def lr_factor(self, step: int) -> float:
        """Return the learning rate at a step, counted from 0, as a share of the peak.

        >>> recipe = PRESETS["tiny"].override(steps=100, warmup=4, final_lr=0.1)
        >>> [round(recipe.lr_factor(step), 2) for step in (0, 3, 52, 100)]
        [0.25, 1.0, 0.55, 0.1]
        >>> [round(recipe.override(schedule="staged").lr_factor(step), 2) for step in (3, 66, 67, 89)]
        [1.0, 1.0, 0.1, 0.01]
        """
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.schedule == "staged":
            return STAGE_FACTOR ** sum(step >= stage * self.steps for stage in STAGES)
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.final_lr + (1 - self.final_lr) * (1 + math.cos(math.pi * done)) / 2


PRESETS = {
    "tiny": Recipe(
        preset="tiny",
        steps=700,
        batch_size=8,
        width=32,
        # 32 groups of 32 channels would normalise each channel alone. Before the last convolution that
        # removes an image's colours, so the first level is twice as wide.
        width_mult=(2, 1, 2),
        blocks=1,
        latent_dim=16,
        vocab_size=256,
        image_size=32,
        patch_nums=(1, 2, 3, 5, 8),
        lr=1.5e-3,
        warmup=100,
        codebook_decay=0.97,
        ema_decay=0.0,
        final_lr=0.01,
    ),
    "var": Recipe(
        preset="var",
        steps=250_000,
        batch_size=256,
        width=160,
        width_mult=(1, 1, 2, 2, 4),
        blocks=2,
        latent_dim=32,
        vocab_size=4096,
        image_size=256,
        patch_nums=(1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
        lr=3e-4,
        warmup=2000,
        codebook_decay=0.99,
        ema_decay=0.9999,
        final_lr=0.3,
    ),
}
