"""Which state dict of a file is taken: wrappers, prefixes, and averaged copies of the weights."""

import pytest
import torch

from entropy_cli.core.errors import CheckpointError
from entropy_cli.tokenizers.checkpoints.checkpoint import open_checkpoint
from tests.checkpoint_files import averaged, holds, layout, saved

WRAPPERS = [
    "trainer.vae_local",
    "trainer.vae_wo_ddp",
    "state_dict",
    "model",
    "vae",
    "net",
    "other.vae",
    "model_state_dict",
]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers(tmp_path, wrapper):
    """Beside larger mappings of tensors that are no tokenizer."""
    larger = {f"blocks.{i}.weight": torch.ones(1) for i in range(20)}
    content = {"a": larger, "trainer": {"var_wo_ddp": larger}, "model": larger, "epoch": 3}
    outer, _, inner = wrapper.rpartition(".")
    (content.setdefault(outer, {}) if outer else content)[inner] = layout()
    checkpoint = open_checkpoint(saved(tmp_path, content))
    assert checkpoint.wrapper == wrapper and holds(checkpoint, layout())
    assert "epoch" in checkpoint.ignored[0] and "a" in checkpoint.ignored[0].split(", ")
    assert checkpoint.copies == ["raw"]
    with pytest.raises(CheckpointError, match=r"--weights ema: .* holds no EMA copy"):
        checkpoint.with_weights("ema")


TWINS = [
    ("trainer.vae_local", "trainer.vae_ema"),
    ("trainer.vae_wo_ddp", "trainer.vae_ema"),
    ("model", "ema"),
    ("vae", "ema"),
    ("state_dict", "state_dict_ema"),
    ("model_state_dict", "model_ema_state_dict"),
]


@pytest.mark.parametrize(("raw", "ema"), TWINS)
def test_an_averaged_copy_in_a_wrapper_of_its_own(tmp_path, raw, ema):
    content = {"epoch": 1}
    for wrapper, start in ((raw, 0), (ema, 50)):
        outer, _, inner = wrapper.rpartition(".")
        (content.setdefault(outer, {}) if outer else content)[inner] = layout(start)
    checkpoint = open_checkpoint(saved(tmp_path, content))
    assert checkpoint.copies == ["raw", "ema"]
    assert (checkpoint.wrapper, checkpoint.weights) == (raw, "raw") and holds(checkpoint, layout())
    view = checkpoint.with_weights("ema")
    assert (view.wrapper, view.weights) == (ema, "ema") and holds(view, layout(50))
    assert view.ignored == checkpoint.ignored == ("epoch",)
    assert holds(view.with_weights("raw"), layout())


def test_an_averaged_copy_alone(tmp_path):
    checkpoint = open_checkpoint(saved(tmp_path, {"ema": layout(), "optimizer": {"w": torch.ones(1)}}))
    assert (checkpoint.copies, checkpoint.weights) == (["ema"], "ema")
    assert checkpoint.wrapper == "ema" and holds(checkpoint, layout())
    with pytest.raises(CheckpointError, match=r"holds no raw copy\. Use --weights ema"):
        checkpoint.with_weights("raw")
    prefixed = open_checkpoint(saved(tmp_path, layout(prefix="ema_model.")))
    assert (prefixed.weights, prefixed.copies, prefixed.prefix) == ("ema", ["ema"], "ema_model.")


def test_a_number_in_an_averaged_mapping_is_no_copy(tmp_path):
    checkpoint = open_checkpoint(saved(tmp_path, {**layout(), "ema": {"decay": torch.ones(1)}}))
    assert "ema" not in checkpoint.copies and holds(checkpoint, layout())
    assert checkpoint.ignored == ("ema (no tensors)",)


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
@pytest.mark.parametrize("dotted", [False, True])
def test_averaged_copies_beside_the_weights(tmp_path, prefix, dotted):
    """Buffers have no averaged copy and stay as they are."""
    weights = layout(prefix=prefix)
    copies = averaged(weights, prefix)
    if dotted:
        copies = {f"{prefix}model_ema.{name}": w + 100 for name, w in list(layout().items())[:2]}
    checkpoint = open_checkpoint(saved(tmp_path, {"state_dict": {**weights, **copies}}))
    assert holds(checkpoint, layout()) and checkpoint.prefix == prefix
    assert checkpoint.copies == ["raw", "ema"]
    told = f"{prefix}model_ema.decay, {prefix}model_ema.num_updates"
    assert checkpoint.ignored == (() if dotted else (told,))
    view = checkpoint.with_weights("ema")
    expected = {n: w if n == "norm.mean" else w + 100 for n, w in layout().items()}
    assert holds(view, expected) and view.dtypes == checkpoint.dtypes


def test_copies_of_a_whole_model_with_the_tokenizer_inside(tmp_path):
    weights = {**layout(prefix="first_stage_model."), "model.diffusion.weight": torch.ones(1)}
    checkpoint = open_checkpoint(saved(tmp_path, {**weights, **averaged(weights)}))
    assert checkpoint.prefix == "first_stage_model." and holds(checkpoint, layout())
    assert checkpoint.with_weights("ema").tensor("encoder.conv_in.weight")[0, 0] == 100


def test_an_averaged_copy_of_another_shape_names_both(tmp_path):
    wrong = {"model_ema.encoderconv_inweight": torch.ones(5)}
    checkpoint = open_checkpoint(saved(tmp_path, {**layout(), **wrong}))
    assert holds(checkpoint, layout())
    with pytest.raises(
        CheckpointError,
        match=r"model_ema\.encoderconv_inweight has shape \[5\], expected \[2, 3\] as encoder\.conv_in",
    ):
        checkpoint.with_weights("ema")


def test_prefixes(tmp_path):
    for anchor in ("conv_in.weight", "conv_in.conv.weight", "latent_token_positional_embedding"):
        for prefix in ("", "module.", "_orig_mod.module.", "model.vqmodel.", "what.ever."):
            weights = {f"encoder.{anchor}": torch.ones(2), "b": torch.zeros(1)}
            content = {prefix + name: weight for name, weight in weights.items()}
            if prefix:
                content |= {f"other.{i}": torch.ones(1) for i in range(1024)}
            checkpoint = open_checkpoint(saved(tmp_path, content))
            assert checkpoint.prefix == prefix and holds(checkpoint, weights)
            outside = (f"1,024 tensors outside {prefix}",) if prefix else ()
            assert checkpoint.ignored == outside


def test_of_several_strange_prefixes_none_is_taken(tmp_path):
    with pytest.raises(CheckpointError, match=r"several tokenizers, under b\., long\."):
        open_checkpoint(saved(tmp_path, layout(0, "long.") | layout(1, "b.")))


@pytest.mark.parametrize(
    ("prefixes", "chosen"),
    [
        (("a.", "first_stage_model."), "first_stage_model."),
        (("ema.", "longer."), "longer."),
        (("", "decoder2."), ""),
        (("vae.", "vae_ema."), "vae."),
    ],
)
def test_of_several_prefixes_one_is_taken_and_the_others_told(tmp_path, prefixes, chosen):
    content = {}
    for i, prefix in enumerate(prefixes):
        content |= layout(i, prefix)
    checkpoint = open_checkpoint(saved(tmp_path, content))
    assert checkpoint.prefix == chosen
    assert checkpoint.tensor("norm.mean")[0] == prefixes.index(chosen)
    (other,) = set(prefixes) - {chosen}
    twin = "ema" in other
    assert ("ema" in checkpoint.copies) == twin
    assert any(other in told and "same layout" in told for told in checkpoint.ignored) != twin
    if twin:
        assert checkpoint.with_weights("ema").tensor("norm.mean")[0] == prefixes.index(other)


def test_an_averaged_copy_of_something_else_is_no_twin(tmp_path):
    content = {**layout(), **layout(1, "cond_stage.ema.")}
    checkpoint = open_checkpoint(saved(tmp_path, content))
    assert "ema" not in checkpoint.copies
    assert "cond_stage.ema. (the same layout again)" in checkpoint.ignored


def test_without_anchors_only_what_wrapping_adds_is_stripped(tmp_path):
    for prefix, stripped in (("module._orig_mod.", "module._orig_mod."), ("net.", "")):
        content = {f"{prefix}a.weight": torch.ones(1), f"{prefix}b.weight": torch.ones(1)}
        assert open_checkpoint(saved(tmp_path, content)).prefix == stripped
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert open_checkpoint(saved(tmp_path, mixed)).shapes.keys() == mixed.keys()


def test_what_is_no_tensor_or_has_no_proper_name_is_told(tmp_path):
    odd = {"vocab_usage_record_times": 3, 7: torch.ones(1), "two\nlines": torch.ones(1), "list": [1]}
    checkpoint = open_checkpoint(saved(tmp_path, {"state_dict": {**layout(), **odd}}))
    assert holds(checkpoint, layout())
    assert checkpoint.ignored == ("vocab_usage_record_times, list in state_dict (no tensors)",)
