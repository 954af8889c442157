"""The default sizes of a training, and checks that images, grids and batches fit each other."""

from collections.abc import Mapping
from typing import Any

from entropy_cli.commands.train.recipe import PRESETS, Recipe
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.tokenizers.layers.autoencoder import LDM

(GROUPS,) = LDM.norm_groups
PATCH_NUMS = {  # by the side of the latent: VAR's, and a few for smaller images
    2: (1, 2),
    4: (1, 2, 3, 4),
    8: (1, 2, 3, 5, 8),
    16: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    32: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
}
WARMUP_DIVISOR = 7  # the default warm-up is at most this fraction of the steps
GROWTH = 1.4  # from one side to the next, where nothing is published


def patch_nums_for(side: int) -> tuple[int, ...]:
    """Return default sides of the scales' grids, up to a latent's side.

    >>> patch_nums_for(8), patch_nums_for(12)
    ((1, 2, 3, 5, 8), (1, 2, 3, 4, 6, 9, 12))
    """
    if side in PATCH_NUMS:
        return PATCH_NUMS[side]
    sides = [side]
    while sides[0] > 1:
        sides.insert(0, min(sides[0] - 1, round(sides[0] / GROWTH)))
    return tuple(sides)


def make_recipe(preset: str, overrides: Mapping[str, Any]) -> Recipe:
    """Return a preset's recipe with overrides; without patch_nums, grids are chosen for the image size.

    >>> make_recipe("tiny", {"image_size": 64, "steps": None}).patch_nums
    (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    """
    recipe = PRESETS[preset].override(**overrides)
    if overrides.get("warmup") is None:  # shorter for a short training
        recipe = recipe.override(warmup=min(recipe.warmup, recipe.steps // WARMUP_DIVISOR))
    side = recipe.image_size // recipe.downsampling
    if overrides.get("patch_nums") is None and side not in (0, recipe.patch_nums[-1]):
        recipe = recipe.override(patch_nums=patch_nums_for(side))
    return recipe


def check_sizes(recipe: Recipe) -> None:
    """Raise EntropyCliError if the sizes of a recipe contradict each other."""
    pixels, grids = recipe.downsampling, recipe.patch_nums
    side, left_over = divmod(recipe.image_size, pixels)
    if left_over or not side:
        raise EntropyCliError(
            f"--image-size {recipe.image_size}: with {len(recipe.width_mult)} levels a latent covers "
            f"{pixels} x {pixels} pixels. Give {_multiple(pixels, recipe.image_size)}."
        )
    if grids[-1] != side or list(grids) != sorted(set(grids)):
        raise EntropyCliError(
            f"--patch-nums {_listed(grids)}: at {recipe.image_size} px the latent "
            f"is {side} x {side}, expected a list that grows up to {side}, such as "
            f"{_listed(patch_nums_for(side))}. Or give --image-size {grids[-1] * pixels}."
        )
    if recipe.norm == "group" and recipe.width % GROUPS:
        raise EntropyCliError(
            f"--width {recipe.width}: group norms have {GROUPS} groups of channels. Give "
            f"{_multiple(GROUPS, recipe.width)}."
        )


def recipe_warnings(recipe: Recipe) -> list[str]:
    """Return warnings about settings that are allowed but unlikely to be wanted."""
    if recipe.norm == "group" and recipe.width * recipe.width_mult[0] == GROUPS:
        return [
            f"the first level has {GROUPS} channels, so that group norms of {GROUPS} groups normalise "
            "each channel alone: the last of them removes an image's colours, and training is slow "
            "and poor. Try --width 64, --width-mult 2,... or --norm batch"
        ]
    return []


def check_batches(recipe: Recipe, images: int, processes: int) -> None:
    """Raise EntropyCliError if there are too few images, or a batch can't be divided evenly."""
    parts = processes * recipe.grad_accum_steps
    if recipe.batch_size % parts:
        raise EntropyCliError(
            f"--batch-size {recipe.batch_size}: can't be divided among {processes} processes with "
            f"{recipe.grad_accum_steps} micro-batches each. Give {_multiple(parts, recipe.batch_size)}."
        )
    if images < recipe.batch_size:
        fits = images // parts * parts
        advice = f"--batch-size {fits}, or more images" if fits else "more images"
        raise EntropyCliError(
            f"{images} images to train on are fewer than a batch of {recipe.batch_size}. Give {advice}."
        )


def _multiple(unit: int, near: int) -> str:
    return f"a multiple of {unit}, such as {max(1, round(near / unit)) * unit}"


def _listed(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))
