"""Train the demo's generator: VAR's layout in small, on the demo's tokenizer and images of another seed.

Run by `make tiny-generator`, as `python -m entropy_cli.commands.demo.generator FOLDER`.
"""

import logging
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from entropy_cli.commands.demo.cli import TOKENIZER
from entropy_cli.core.errors import DatasetError
from entropy_cli.core.files import write_atomically
from entropy_cli.core.progress_bars import Bars
from entropy_cli.entropy.assign import assign
from entropy_cli.generators.layers.var_transformer import VARNetwork, VARSizes, levels
from entropy_cli.images.decode import read_image
from entropy_cli.images.synthetic import KINDS, write_image_folder
from entropy_cli.streaming.coarser_scales import teacher_inputs
from entropy_cli.terminal import tqdm_bar
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.preprocess import resized_side
from entropy_cli.tokenizers.registry import load_tokenizer

logger = logging.getLogger(__name__)

FILE = "generator.safetensors"
IMAGES, HELD_OUT, IMAGES_SEED = 8000, 400, 2  # the tokenizer saw images of seed 0, the demo has seed 1
CLASSES = sorted(KINDS)  # in the order of their folders
ENCODED = 100  # images at once


@dataclass(frozen=True)
class TrainingRecipe:
    """Sizes of the generator, and how it is trained: AdamW, warm-up, then a cosine to nothing."""

    width: int = 96
    depth: int = 3
    heads: int = 4
    steps: int = 800
    batch_size: int = 32
    lr: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.05
    clip: float = 1.0
    label_dropout: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Examples:
    """Tokens, classes, and the teacher-forcing inputs of the tokens after the first scale."""

    idx_NL: Tensor
    label_N: Tensor
    inputs_NMC: Tensor

    def select(self, rows: slice | Tensor) -> "Examples":
        """Return some of the images."""
        return Examples(self.idx_NL[rows], self.label_N[rows], self.inputs_NMC[rows])


def train_generator(folder: Path, recipe: TrainingRecipe, images: int, bars: Bars) -> float:
    """Train a generator on synthetic images and write it to a folder.

    Args:
        folder: for its file, in float16, and for the images.
        recipe: of the training.
        images: number of synthetic images, of which a twentieth is held out.
        bars: makes progress bars.

    Returns:
        The cross-entropy on the held-out images given their classes, nats per token.

    Raises:
        DatasetError: an image can't be written or read.
    """
    tokenizer = load_tokenizer(TOKENIZER).tokenizer
    held_out = images * HELD_OUT // IMAGES
    examples = _examples(folder / "images", tokenizer, images, bars)
    train, rest = examples.select(slice(0, -held_out)), examples.select(slice(-held_out, None))
    spec = tokenizer.spec
    sizes = VARSizes(
        width=recipe.width,
        depth=recipe.depth,
        heads=recipe.heads,
        ffn=4 * recipe.width,
        latent_dim=spec.latent_dim,
        vocab_size=spec.vocab_size,
        classes=len(CLASSES),
        tokens_S=tuple(scale.tokens for scale in spec.scales),
        shared_ada=True,
    )
    network = VARNetwork(sizes)
    initialise(network, recipe.seed)
    _train(network, train, recipe, bars)
    with torch.no_grad():
        losses = [loss_of(network, rest, dropped_B=torch.full((held_out,), null)) for null in (0, 1)]
    given, null = (loss.item() for loss in losses)
    logger.info("held out: %.3f nats per token given the class, %.3f without", given, null)
    weights = {name: weight.detach().half() for name, weight in network.named_parameters()}
    weights["lvl_1L"] = levels(sizes.tokens_S, torch.device("cpu"))[None]
    about = {"seed": str(recipe.seed), "command": "make tiny-generator", "held_out": f"{given:.4f}"}
    write_atomically(folder / FILE, lambda path: save_file(weights, path, about))
    return given


@torch.no_grad()
def _examples(folder: Path, tokenizer: Tokenizer, images: int, bars: Bars) -> Examples:
    """Write images as the demo does, and return their tokens, classes and inputs."""
    spec = tokenizer.spec
    assert spec.image_size is not None
    with bars("writing images", images, "img") as bar:
        paths = write_image_folder(
            folder, images, resized_side(spec.image_size), IMAGES_SEED, bar.update
        )
    parts = []
    with bars("encoding images", images, "img") as bar:
        for start in range(0, images, ENCODED):
            crops = [read_image(path, spec.crop.apply) for path in paths[start : start + ENCODED]]
            if broken := [crop for crop in crops if isinstance(crop, str)]:
                raise DatasetError(f"{folder}: an image can't be read: {broken[0]}.")
            rest_BChw = tokenizer.encode(torch.stack([c for c in crops if isinstance(c, Tensor)]))
            idx_Bls = []
            for scale in range(len(spec.scales)):
                z_BlC = tokenizer.vectors(rest_BChw, scale)
                idx_Bls.append(assign(z_BlC, tokenizer.codebook(scale), []).idx_Bl)
                if scale + 1 < len(spec.scales):
                    rest_BChw = tokenizer.subtract(rest_BChw, idx_Bls[-1], scale)
            idx_BL = torch.cat(idx_Bls, 1)
            parts.append((idx_BL, teacher_inputs(tokenizer, idx_BL)))
            bar.update(len(crops))
    idx_NL, inputs_NMC = (torch.cat(column) for column in zip(*parts, strict=True))
    label_N = torch.tensor([CLASSES.index(path.parent.name) for path in paths])
    return Examples(idx_NL, label_N, inputs_NMC)


@torch.no_grad()
def initialise(network: VARNetwork, seed: int) -> None:
    """Draw weights that keep the variance, with gates half open and no bias."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        if name.endswith("bias"):
            weight.zero_()
        elif name.endswith("scale_mul_1H11"):
            weight.fill_(math.log(4))
        else:
            is_small = any(part in name for part in ("emb.", "lvl_", "pos_", "ada_", "head."))
            weight.normal_(
                0, 0.02 if is_small else 0.7 / math.sqrt(weight.shape[-1]), generator=generator
            )
        if name.endswith("ada_gss"):
            weight[:, :, :2] += 0.5


def loss_of(network: VARNetwork, examples: Examples, dropped_B: Tensor) -> Tensor:
    """Return the cross-entropy in nats per token, without the class where it is dropped."""
    label_B = torch.where(dropped_B.bool(), len(CLASSES), examples.label_N)
    hidden_BLC = network(examples.idx_NL, label_B, examples.inputs_NMC)
    logits_NV = network.logits(hidden_BLC.flatten(0, 1))
    return functional.cross_entropy(logits_NV, examples.idx_NL.flatten())


def _train(network: VARNetwork, examples: Examples, recipe: TrainingRecipe, bars: Bars) -> None:
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.lr, betas=(0.9, 0.95), weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1, (step + 1) / recipe.warmup) * (0.5 + 0.5 * math.cos(math.pi * step / recipe.steps))
        ),
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    row_N = torch.empty(0, dtype=torch.int64)
    with bars("training", recipe.steps, "step") as bar:
        for _ in range(recipe.steps):
            if len(row_N) < recipe.batch_size:
                row_N = torch.randperm(len(examples.label_N), generator=generator)
            batch, row_N = examples.select(row_N[: recipe.batch_size]), row_N[recipe.batch_size :]
            dropped_B = torch.rand(len(batch.label_N), generator=generator) < recipe.label_dropout
            loss = loss_of(network, batch, dropped_B)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
            optimizer.step()
            schedule.step()
            bar.set_postfix_str(f"{loss.item():.3f} nats per token", refresh=False)
            bar.update(1)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train_generator(Path(sys.argv[1]), TrainingRecipe(), IMAGES, tqdm_bar)
