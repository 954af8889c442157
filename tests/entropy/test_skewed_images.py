"""How the 95 % interval of a mean over images covers where images are skewed: the guide's table."""

import numpy as np
import pytest

from entropy_cli.entropy.jackknife import jackknife_variance, t_quantile

GROUPS, SPLITS, RUNS = 32, 40, 50  # 2,000 runs: as many images in the same groups for RUNS of them
COVERED = {  # of each population by 4, 8, 16, 32 and 1,000 images
    "normal": (0.95, 0.95, 0.95, 0.95, 0.95),
    "lognormal": (0.83, 0.84, 0.87, 0.89, 0.945),
    "outliers": (0.95, 0.955, 0.955, 0.945, 0.95),
}


def drawn(kind, shape, generator):
    """Entropies of images less their mean: normal, log-normal, or 1 % of them 8 sd above the others."""
    x = generator.standard_normal(shape)
    if kind == "lognormal":
        return np.exp(x) - np.exp(0.5)
    return x + 8 * ((generator.random(shape) < 0.01) - 0.01) if kind == "outliers" else x


def covered(kind, images, generator):
    """The share of runs whose interval holds the truth, 0."""
    inside = 0
    for _ in range(SPLITS):
        x_RM = drawn(kind, (RUNS, images), generator)
        group_M = generator.integers(GROUPS, size=images)
        images_G = np.bincount(group_M, minlength=GROUPS)
        is_in_MG = group_M[:, None] == np.arange(GROUPS)
        with np.errstate(invalid="ignore"):  # of one group that holds all images, which does not happen
            deleted_GR = ((x_RM.sum(1)[:, None] - x_RM @ is_in_MG) / (images - images_G)).T
        value_R = x_RM.mean(1)
        half_R = np.sqrt(jackknife_variance(value_R, deleted_GR, images_G))
        half_R *= t_quantile(int((images_G > 0).sum()) - 1)
        inside += int((abs(value_R) <= half_R).sum())
    return inside / (SPLITS * RUNS)


@pytest.mark.parametrize("kind", COVERED)
def test_the_interval_covers_as_the_guide_says(kind):
    generator = np.random.default_rng(0)
    found = [covered(kind, images, generator) for images in (4, 8, 16, 32, 1000)]
    assert found == pytest.approx(COVERED[kind], abs=0.03)
