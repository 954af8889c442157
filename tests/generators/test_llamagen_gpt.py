"""LlamaGen's transformer: heads, grids and classes that shapes don't show."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from entropy_cli.core.errors import CheckpointError
from entropy_cli.generators.registry import load_generator, match_generator
from entropy_cli.generators.settings import GeneratorSettings
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from tests.generator_checkpoints import gpt_shapes, random_weights
from tests.generators.golden import logits_of
from tests.generators.reference import gpt_logits

AT_48 = GeneratorSettings(image_size=48, heads=4)


def described(shapes, settings=None):
    """Of shapes alone, as the published ones are large."""
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    checkpoint = Checkpoint.of_tensors(Path("x"), {})
    checkpoint.shapes = {name: tuple(weight.shape) for name, weight in state.items()}
    return match_generator(checkpoint, settings=settings).describe()


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        *((768, 12), (1024, 16), (1280, 20), (1536, 24), (2048, 32), (2560, 40)),
        *((3200, 32), (4096, 32), (128, 2)),
    ],
)
def test_heads_of_published_widths(width, heads):
    assert described(gpt_shapes(width=width)).heads == heads
    assert described(gpt_shapes(width=width), GeneratorSettings(heads=8)).heads == 8


def test_heads_of_any_size():
    """Of 20 dimensions there are 5 frequencies for rows and for columns, as 25 of the published 100."""
    weights = random_weights(gpt_shapes(width=40))
    settings = GeneratorSettings(image_size=64, heads=2)
    generator = match_generator(Checkpoint.of_tensors(Path("x"), weights), settings=settings).build()
    idx_BL = torch.randint(24, (2, 16), generator=torch.manual_seed(1))
    label_B = torch.tensor([0, 5])
    expected = gpt_logits(weights, vars(generator.spec), label_B, idx_BL, None)
    assert (logits_of(generator, idx_BL, label_B, None) - expected).abs().max() < 2e-5
    with pytest.raises(CheckpointError, match="heads have 10 dimensions, expected a multiple of 4"):
        described(gpt_shapes(width=40), GeneratorSettings(heads=4))


@pytest.mark.parametrize(
    ("rows", "classes", "null"), [(1001, 1000, 1000), (1000, 1000, None), (6, 5, 5)]
)
def test_classes(rows, classes, null):
    spec = described(gpt_shapes(rows=rows))
    assert (spec.classes, spec.null_class) == (classes, null)
    assert bool(spec.notes) == (null is None)


@pytest.fixture
def load(tmp_path):
    def build(state, settings=None, **arguments):
        path = tmp_path / "0000300.pt"
        content = {"model": state, "optimizer": {}, "steps": 300}
        torch.save(content | ({"args": argparse.Namespace(**arguments)} if arguments else {}), path)
        return load_generator(path, settings=settings)

    return build


def test_the_image_size_is_that_of_the_training_or_has_to_be_given(load):
    state = random_weights(gpt_shapes())
    with pytest.raises(CheckpointError, match="Give --image-size, such as 256 or 384"):
        load(state, GeneratorSettings(heads=4))
    assert load(state, AT_48).generator.spec.patch_nums == (3,)
    heads = GeneratorSettings(heads=4)
    spec = load(state, heads, image_size=64, mixed_precision="none").generator.spec
    assert (spec.image_size, spec.patch_nums, spec.trained_in) == (64, (4,), "tf32")
    spec = load(state, heads, image_size=64, downsample_size=8, mixed_precision="fp16").generator.spec
    assert (spec.patch_nums, spec.trained_in) == ((8,), "fp16")
    loaded = load(state, heads, image_size=64)
    assert loaded.checkpoint.classes == ()  # an argparse.Namespace, which was not made
    with pytest.raises(CheckpointError, match=r"was trained on images of 64 pixels"):
        load(state, AT_48, image_size=64)
    with pytest.raises(CheckpointError, match="image size 50: a token covers 16 pixels"):
        load(state, GeneratorSettings(image_size=50, heads=4))
    for nonsense in ("256", -256, 2**40, True, 25.6):  # is as good as nothing
        assert load(state, AT_48, image_size=nonsense).generator.spec.image_size == 48


def test_old_files_hold_the_rotations(load):
    state = random_weights(gpt_shapes())
    rotated = state | {"freqs_cis": torch.zeros(10, 4, 2)}
    spec = load(rotated).generator.spec  # the tokenizer knows the size of its images
    assert (spec.image_size, spec.patch_nums, spec.heads) == (None, (3,), 4)
    assert load(rotated, image_size=48).generator.spec.image_size == 48
    with pytest.raises(CheckpointError, match="is for 10 tokens, expected a square grid"):
        load(state | {"freqs_cis": torch.zeros(11, 4, 2)})
    with pytest.raises(CheckpointError, match=r"is for 9 tokens, but images of 64 pixels have 16"):
        load(rotated, image_size=64)
    with pytest.raises(CheckpointError, match=r"--heads 2: .* shows that it has 4"):
        load(rotated, GeneratorSettings(heads=2))


@pytest.mark.parametrize(
    ("rows", "told", "classes", "null"),
    [(6, 6, 6, None), (6, 5, 5, 5), (1000, 999, 999, 999), (6, 77, 5, 5)],  # weights count
)
def test_classes_of_the_training(load, rows, told, classes, null):
    state = random_weights(gpt_shapes(rows=rows))
    spec = load(state, AT_48, num_classes=told).generator.spec
    assert (spec.classes, spec.null_class, bool(spec.notes)) == (classes, null, null is None)


HUB = {
    **{"dim": 40, "n_layer": 2, "n_head": 2, "block_size": 16, "vocab_size": 24, "num_classes": 6},
    **{"norm_eps": 1e-2, "rope_base": 100, "class_dropout_prob": 0.0, "n_kv_head": None},
}


@pytest.fixture
def hub(tmp_path):
    """A folder of the hub, where config.json has the published code's ModelArgs."""

    def folder(**changed):
        save_file(random_weights(gpt_shapes(width=40)), tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(HUB | changed))
        return tmp_path

    return folder


def test_a_folder_of_the_hub(hub):
    generator = load_generator(hub()).generator
    spec = generator.spec
    assert (spec.patch_nums, spec.image_size, spec.heads) == ((4,), None, 2)
    assert (spec.classes, spec.null_class) == (6, None)
    idx_BL = torch.randint(24, (2, 16), generator=torch.manual_seed(1))
    label_B = torch.tensor([0, 5])
    weights = random_weights(gpt_shapes(width=40))
    expected = gpt_logits(weights, vars(spec) | HUB, label_B, idx_BL, None)
    assert (logits_of(generator, idx_BL, label_B, None) - expected).abs().max() < 2e-5


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"n_layer": 3}, "n_layer is 3, but the weights have 2"),
        ({"vocab_size": 16384}, "vocab_size is 16384, but the weights have 24"),
        ({"n_head": "two"}, "'two' heads"),
        ({"block_size": 15}, "is for 15 tokens, expected a square grid"),
        ({"block_size": -16}, "is for -16 tokens, expected a square grid"),
        ({"num_classes": 1000}, "num_classes is 1000, but the weights have 6 rows"),
        ({"cls_token_num": 120}, "cls_token_num is 120, but the weights have 1"),
        ({"norm_eps": "1e-2"}, "norm_eps is '1e-2', expected a positive number"),
        ({"rope_base": -100}, "rope_base is -100, expected a positive number"),
        ({"rope_base": 10**400}, "rope_base is 1000.*, expected a positive number"),
    ],
)
def test_a_config_of_another_checkpoint(hub, changed, words):
    with pytest.raises(CheckpointError, match=words):
        load_generator(hub(**changed))


def test_heads_that_share_keys_are_refused():
    shapes = gpt_shapes() | {"layers.0.attention.wqkv.weight": (64, 32)}
    with pytest.raises(CheckpointError, match="heads that share keys are not supported"):
        described(shapes, AT_48)


def test_the_host_never_waits_for_a_gpu(pretended_gpu):
    weights = random_weights(gpt_shapes())
    cpu = match_generator(Checkpoint.of_tensors(Path("x"), weights), settings=AT_48).build()
    idx_BL, label_B = torch.randint(24, (2, 9), generator=torch.manual_seed(1)), torch.tensor([0, 5])
    with torch.inference_mode():
        expected = logits_of(cpu, idx_BL, label_B, None)
        generator = cpu.to(torch.device("cuda:0"), "fp32")
        inputs = idx_BL.to("cuda"), label_B.to("cuda")
        pretended_gpu.counts.waits.clear()
        logits_BLV = generator.logits(generator.hidden(*inputs, None).flatten(0, 1))
    assert not pretended_gpu.counts.waits
    assert logits_BLV.cpu().view_as(expected) == pytest.approx(expected, abs=1e-5)
