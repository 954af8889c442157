"""The learning rate schedule."""

import math

from entropy_cli.commands.train.recipe import Recipe

STAGES, STAGE_FACTOR = (2 / 3, 8 / 9), 0.1


def lr_factor(step: int, recipe: Recipe) -> float:
    """Return the learning rate at a step, counted from 0, as a share of the peak.

    >>> from entropy_cli.commands.train.recipe import PRESETS
    >>> recipe = PRESETS["tiny"].override(steps=100, warmup=4, final_lr=0.1)
    >>> [round(lr_factor(step, recipe), 2) for step in (0, 3, 52, 100)]
    [0.25, 1.0, 0.55, 0.1]
    >>> [round(lr_factor(step, recipe.override(schedule="staged")), 2) for step in (3, 66, 67, 89)]
    [1.0, 1.0, 0.1, 0.01]
    """
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    if recipe.schedule == "staged":
        return STAGE_FACTOR ** sum(step >= stage * recipe.steps for stage in STAGES)
    done = min(1.0, (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup))
    return recipe.final_lr + (1 - recipe.final_lr) * (1 + math.cos(math.pi * done)) / 2
