"""The demo's generator: how it is trained, and what the one that comes along is worth."""

import math

import pytest
import torch

from entropy_cli.commands.demo.cli import TOKENIZER
from entropy_cli.commands.demo.generator import FILE, TrainingRecipe, train_generator
from entropy_cli.core.progress_bars import no_bars
from entropy_cli.entropy.assign import assign
from entropy_cli.generators.fits import check_fits
from entropy_cli.generators.registry import find_generator, load_generator
from entropy_cli.images.decode import read_image
from entropy_cli.images.synthetic import KINDS, write_image_folder
from entropy_cli.streaming.coarser_scales import teacher_inputs
from entropy_cli.tokenizers.registry import load_tokenizer
from tests.generators.golden import logits_of, losses

GENERATOR = TOKENIZER.with_name(FILE)
SMALL = TrainingRecipe(width=32, depth=2, heads=2, steps=30, batch_size=8, warmup=5, lr=1e-2)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(TOKENIZER).tokenizer


def test_training_writes_a_generator_of_the_tokenizer_that_has_learnt(tmp_path, tokenizer):
    given = train_generator(tmp_path, SMALL, 80, no_bars)
    found = find_generator(tmp_path / FILE)
    spec = found.describe()
    check_fits(spec, tokenizer.spec)
    assert (spec.classes, spec.null_class, spec.depth, spec.heads) == (len(KINDS), len(KINDS), 2, 2)
    assert set(found.checkpoint.dtypes.values()) == {"float16", "int64"}
    assert 4 < given < 5.4 < math.log(256)
    again = tmp_path / "again"
    again.mkdir()
    assert train_generator(again, SMALL, 80, no_bars) == pytest.approx(given, abs=1e-4)


def test_the_one_that_comes_along(tmp_path, tokenizer):
    """On images that it has not seen: above half of an even guess, below it; better with the class."""
    assert GENERATOR.stat().st_size < 1_000_000
    generator = load_generator(GENERATOR).generator
    check_fits(generator.spec, tokenizer.spec)
    paths = write_image_folder(tmp_path, 64, 36, seed=11)
    rest_BChw = tokenizer.encode(
        torch.stack([read_image(path, tokenizer.spec.crop.apply) for path in paths])
    )
    idx_Bls = []
    for scale in range(len(tokenizer.spec.scales)):
        z_BlC = tokenizer.vectors(rest_BChw, scale)
        idx_Bls.append(assign(z_BlC, tokenizer.codebook(scale), []).idx_Bl)
        rest_BChw = tokenizer.subtract(rest_BChw, idx_Bls[-1], scale)
    idx_BL = torch.cat(idx_Bls, 1)
    inputs_BMC = teacher_inputs(tokenizer, idx_BL)
    label_B = torch.tensor([sorted(KINDS).index(path.parent.name) for path in paths])

    def cross_entropy(labels):
        return losses(logits_of(generator, idx_BL, labels, inputs_BMC), idx_BL)[0].mean().item()

    given = cross_entropy(label_B)
    assert 3.9 < given < 4.6
    assert given + 0.05 < cross_entropy(torch.full_like(label_B, generator.spec.null_class))
    assert given + 0.1 < cross_entropy(label_B.roll(1))
