"""A checkpoint with one tensor changed gives the same tokens or an error, never other tokens."""

import random

import pytest
import torch

from entropy_cli.tokenizers.settings import TokenizerSettings
from tests.family_checkpoints import EXAMPLES, random_weights
from tests.mutations import mutations, outcome, tokens_of

SAMPLED, SEED = 14, 20
# What trainings leave in a checkpoint and tokens don't need.
ASIDE = {
    "var": {"quantize.ema_vocab_hit_SV": (4, 40)},
    "vqgan": {"quantize.embedding.cluster_size": (40,), "quantize.embedding.embed_avg": (40, 6)},
    "llamagen": {"quantize.codebook_used": (64,)},
    "open-magvit2": {"quantize.mask": (7,), "quantize.codebook": (128, 7)},
    "maskbit": {"quantize.codebook": (128, 7)},
    "show-o": {"quantize.embedding": (128, 7)},
    "emu3": {"encoder.time_res_stack.0.norm1.num_batches_tracked": ()},
}


@pytest.fixture(scope="module")
def pixels():
    return torch.randint(256, (1, 3, 16, 16), generator=torch.manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("copies", ["raw", "ema"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_one_tensor_changed(tmp_path, pixels, name, copies):
    example, path = EXAMPLES[name], tmp_path / "x.pt"
    state = random_weights(example.shapes | ASIDE.get(name, {}))
    if copies == "ema":
        averaged = random_weights(example.shapes, seed=2)
        state |= {f"model_ema.{key.replace('.', '')}": weight for key, weight in averaged.items()}
    settings = TokenizerSettings(**{**vars(example.settings), "weights": copies})
    torch.save(state, path)
    expected = tokens_of(path, example.family, settings, pixels)
    sample = random.Random(SEED).sample(list(mutations(state, SEED)), SAMPLED)
    for way, key, changed in sample:
        torch.save(changed, path)
        found = outcome(path, example.family, settings, pixels, expected)
        assert found in ("same", "refused"), (way, key, found)


def test_an_average_without_the_codes_twin_is_refused(tmp_path, pixels):
    """Mixed with the raw codes it would be of no training step."""
    example, path = EXAMPLES["ibq"], tmp_path / "x.pt"
    raw, averaged = (random_weights(example.shapes, seed) for seed in (1, 2))
    twins = {f"model_ema.{key.replace('.', '')}": weight for key, weight in averaged.items()}
    del twins["model_ema.quantizeembeddingweight"]
    torch.save(raw | twins, path)
    assert outcome(path, "ibq", example.settings, pixels, []) == "refused"
    # Codes that training averages itself have none.
    torch.save(raw | twins | {"quantize.embedding.cluster_size": torch.ones(40)}, path)
    assert outcome(path, "vqgan", TokenizerSettings(16, weights="ema"), pixels, []) == "OTHER TOKENS"


def test_depths_without_their_codebook_are_refused(tmp_path, pixels):
    example, path = EXAMPLES["rq-vae"], tmp_path / "x.pt"
    state = random_weights(example.shapes)
    del state["quantizer.codebooks.2.weight"]
    torch.save(state, path)
    assert outcome(path, "auto", example.settings, pixels, []) == "refused"
