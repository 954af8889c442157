"""How a tokenizer is trained: everything that decides what comes out."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from entropy_cli.tokenizers.layers.var_layout import VARSizes

UNTIL_REVIVAL_ENDS = 0.8  # of the steps; then the codes settle
# Where the key in files is not the field's name: files of version 0.1 have these keys.
JSON_KEYS = {
    "codebook_decay": "decay",
    "ema_decay": "average",
    "grad_accum_steps": "accumulate",
    "grad_clip": "clip",
}


@dataclass(frozen=True)
class Recipe:
    """Numbers of images are of all processes together.

    Attributes:
        width, width_mult, blocks, latent_dim, vocab_size: see `VARSizes`.
        image_size: pixels on a side.
        patch_nums: side of each scale's grid.
        norm: group or batch norm.
        lr: at its highest.
        final_lr: at the end, as a share of that.
        warmup: steps of linear growth.
        schedule: after it: cosine, or a tenth from 2/3 of the steps on and again from 8/9.
        grad_clip: largest norm of the gradient; 0 for any.
        l1, l2: weights of the reconstruction losses, of pixels in [-1, 1].
        beta: weight of the commitment loss.
        codebook: whether codes are moving averages of what they are nearest to, or trained.
        codebook_decay: of those averages, and of the counts of both.
        init: of the codes: k-means of the first residuals, or uniform in +-1/V.
        revive_every: steps between replacements of dead codes by vectors; 0 for never.
        grad_accum_steps: parts that a batch is computed in, one after the other.
        ema_decay: decay of the average of the weights that is saved and evaluated; 0 for none.
        precision: of convolutions and attention.
        seed: of weights, crops, order of images, and codes.
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
        """Of the model."""
        phis = min(4, len(self.patch_nums))  # one that no scale uses would not be trained
        return VARSizes(self.width, self.width_mult, self.blocks, self.latent_dim, self.vocab_size, phis)

    @property
    def downsampling(self) -> int:
        """Pixels on the side of one latent."""
        return 2 ** (len(self.width_mult) - 1)

    def changed(self, **given: Any) -> "Recipe":  # noqa: ANN401 - values of its fields
        """With what is given, and the rest as it is; None is not given."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def to_json(self) -> dict[str, Any]:
        """Return plain values by the keys that they have in files."""
        values = {JSON_KEYS.get(f.name, f.name): getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


PRESETS = {
    "tiny": Recipe(
        preset="tiny",
        steps=700,
        batch_size=8,
        width=32,
        # 32 groups of 32 channels would be normalised alone: before the last convolution that takes away
        # a picture's colours, so the first level is twice as wide.
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
