"""Whether pictures, grids and batches of a training fit each other, and what would fit."""

from collections.abc import Mapping
from typing import Any

from entropy_cli.commands.train.recipe import PRESETS, Recipe
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.tokenizers.layers.autoencoder import LDM

GROUPS = LDM.norm_groups
PATCH_NUMS = {  # by the side of the latent: VAR's, and a few for smaller pictures
    2: (1, 2),
    4: (1, 2, 3, 4),
    8: (1, 2, 3, 5, 8),
    16: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    32: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
}
WARMUP_SHARE = 7  # of the steps at most one in so many, unless it is given
GROWTH = 1.4  # from one side to the next, where nothing is published


def patch_nums_for(side: int) -> tuple[int, ...]:
    """Sides of the scales' grids that end in a latent's.

    >>> patch_nums_for(8), patch_nums_for(12)
    ((1, 2, 3, 5, 8), (1, 2, 3, 4, 6, 9, 12))
    """
    if side in PATCH_NUMS:
        return PATCH_NUMS[side]
    sides = [side]
    while sides[0] > 1:
        sides.insert(0, min(sides[0] - 1, round(sides[0] / GROWTH)))
    return tuple(sides)


def recipe_of(preset: str, given: Mapping[str, Any]) -> Recipe:
    """A preset's recipe with what is given; grids fit a size of pictures that was given without them.

    >>> recipe_of("tiny", {"image_size": 64, "steps": None}).patch_nums
    (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    """
    recipe = PRESETS[preset].changed(**given)
    if given.get("warmup") is None:  # of a short training a part too
        recipe = recipe.changed(warmup=min(recipe.warmup, recipe.steps // WARMUP_SHARE))
    if given.get("patch_nums") is None and recipe.image_size >= recipe.downsampling:
        side = recipe.image_size // recipe.downsampling
        if side != recipe.patch_nums[-1]:
            recipe = recipe.changed(patch_nums=patch_nums_for(side))
    return recipe


def check_fit(recipe: Recipe) -> None:
    """Raise EntropyCliError if the sizes of a recipe contradict each other."""
    pixels = recipe.downsampling
    side, left_over = divmod(recipe.image_size, pixels)
    if left_over or not side:
        near = max(1, round(recipe.image_size / pixels)) * pixels
        raise EntropyCliError(
            f"--image-size {recipe.image_size}: {len(recipe.width_mult)} levels make one latent of "
            f"{pixels} x {pixels} pixels. Give a multiple of {pixels}, such as {near}."
        )
    if recipe.patch_nums[-1] != side or any(
        a >= b for a, b in zip(recipe.patch_nums, recipe.patch_nums[1:], strict=False)
    ):
        raise EntropyCliError(
            f"--patch-nums {_listed(recipe.patch_nums)} don't fit: at {recipe.image_size} px the latent "
            f"is {side} x {side}, expected a list that grows up to {side}, such as "
            f"{_listed(patch_nums_for(side))}. Or give --image-size {recipe.patch_nums[-1] * pixels}."
        )
    if recipe.norm == "group" and recipe.width % GROUPS:
        fits = max(1, round(recipe.width / GROUPS)) * GROUPS
        raise EntropyCliError(
            f"--width {recipe.width}: norms have {GROUPS} groups of channels. Give a multiple of that, "
            f"such as {fits}."
        )


def warnings_of(recipe: Recipe) -> list[str]:
    """What is allowed, but likely not wanted."""
    if recipe.norm == "group" and recipe.width * recipe.width_mult[0] == GROUPS:
        return [
            f"the first level has {GROUPS} channels, so that group norms of {GROUPS} groups normalise "
            "each channel alone: the last of them takes away a picture's colours, and training is slow "
            "and poor. Try --width 64, --width-mult 2,... or --norm batch"
        ]
    return []


def check_batches(recipe: Recipe, pictures: int, processes: int) -> None:
    """Raise EntropyCliError if there are too few pictures, or a batch can't be shared evenly."""
    parts = processes * recipe.grad_accum_steps
    if recipe.batch_size % parts:
        fits = max(1, round(recipe.batch_size / parts)) * parts
        raise EntropyCliError(
            f"--batch-size {recipe.batch_size}: is computed by {processes} processes in "
            f"{recipe.grad_accum_steps} parts each. Give a multiple of {parts}, such as {fits}."
        )
    if pictures < recipe.batch_size:
        fits = pictures // parts * parts
        advice = f"--batch-size {fits}, or more pictures" if fits else "more pictures"
        raise EntropyCliError(
            f"{pictures} pictures to train on are fewer than a batch of {recipe.batch_size}. "
            f"Give {advice}."
        )


def _listed(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))
