"""Evaluations on a GPU, a pretended one always and a real one where there is one: the CPU's numbers."""

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from tests.commands.evaluate.conftest import AVERAGES, assert_same_losses, parts_of
from tests.commands.evaluate.test_runs import interrupt_at, load_nats

CUDA = ("--device", "cuda")
pytestmark = pytest.mark.usefixtures("gpu_device")
COUNTS = ("accuracy_top1", "accuracy_top5")


@pytest.mark.parametrize("batch", [4, 16, 48])
def test_numbers_are_the_cpus_and_those_of_images_at_their_places(
    evaluate, options, whole, tmp_path, batch
):
    """Losses come back while the next batch is computed, and are written where their image is."""
    files = ("--per-image", tmp_path / "n.csv")
    result = evaluate(*options, *CUDA, "--precision", "fp32", "--batch-size", batch, *files)
    assert result["provenance"]["device"].startswith("cuda")
    assert_same_losses(whole[0] | {"labels": result["labels"]}, result, 1e-4, but=NULL)
    nats, expected = load_nats(tmp_path / "n.csv"), load_nats(whole[1]["nats"])
    assert nats == pytest.approx(expected, rel=1e-5)
    assert len(set(np.round(expected, 6))) == 70  # so that places matter
    assert nats.mean() == pytest.approx(result["total"]["nats_per_image"], rel=1e-9)


NULL = ("cross_entropy_null", "as_logged")  # of 512 images on a GPU, of 64 on a CPU


def test_the_label_check_is_of_more_images(evaluate, options):
    result = evaluate(*options, *CUDA, "--precision", "fp32")
    assert result["labels"]["check"]["images"] == 70


def test_half_precision_is_the_default_and_its_cost_is_measured(evaluate, options, whole):
    result = evaluate(*options, *CUDA)
    assert result["model"]["precision"] == "fp16" == result["settings"]["precision"]
    model, encoder = result["model_precision_check"], result["precision_check"]
    assert model["images"] == encoder["images"] == 64
    assert model["reference"] == encoder["reference"] == "fp32"
    got, exact = (
        [part["cross_entropy"]["value"] for _, part in parts_of(r)] for r in (result, whole[0])
    )
    assert got != exact and got == pytest.approx(exact, abs=0.03)
    weighted = AVERAGES.index("token_weighted") + len(result["scales"])
    cost = model["cross_entropy_difference_token_weighted"]
    assert got[weighted] - exact[weighted] == pytest.approx(cost, abs=5e-3)


def test_interrupted_and_gone_on_with(evaluate, options, tmp_path):
    run = (*options, *CUDA, "--precision", "fp32", "--label-check", 20)
    expected = evaluate(*run, "--per-image", tmp_path / "e.csv")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, 3)
        assert evaluate(*run, "--state", tmp_path / "s")[0] == 143
    more = ("--state", tmp_path / "s", "--per-image", tmp_path / "n.csv")
    result = evaluate(*run, *more)
    assert 0 < result["provenance"]["images_resumed"] < 70
    assert_same_losses(expected, result, 1e-9)
    assert (tmp_path / "n.csv").read_bytes() == (tmp_path / "e.csv").read_bytes()


def test_saved_tokens(evaluate, options, whole, tmp_path):
    given = ("--tokens", whole[1]["tokens"], "--result", whole[1]["result"], *CUDA)
    files = ("--per-image", tmp_path / "n.csv")
    result = evaluate(*given, *options[2:6], "--precision", "fp32", *files)
    assert_same_losses(whole[0] | {"labels": result["labels"]}, result, 1e-4, but=(*NULL, *SOFT))
    assert load_nats(tmp_path / "n.csv") == pytest.approx(load_nats(whole[1]["nats"]), rel=1e-5)


SOFT = ("target_cross_entropy", "kl")


@pytest.mark.parametrize("given", ["images", "tokens"])
def test_no_batch_is_waited_for_but_by_its_event(pretended_gpu, evaluate, options, whole, given):
    run = (*options, *CUDA, "--precision", "fp32")
    if given == "tokens":
        files = ("--tokens", whole[1]["tokens"], "--result", whole[1]["result"])
        run = (*files, *options[2:6], *CUDA, "--precision", "fp32")
    evaluate(*run)
    counts = pretended_gpu.counts
    of_batches = ("streaming/scorer", "streaming/batch", "entropy/token", "entropy/loss")
    for place in (*of_batches, "generators/layers"):
        waits = {at: number for at, number in counts.waits.items() if at[1].startswith(place)}
        assert not waits, waits


def test_a_loss_that_is_no_number_is_named_and_not_saved(evaluate, options, model, tmp_path):
    weights = load_file(model)
    weights["head.weight"] *= 1e38
    save_file(weights, tmp_path / "m.safetensors")
    run = (*options, *CUDA, "--precision", "fp32", "--model", tmp_path / "m.safetensors")
    code, err = evaluate(*run, "--state", tmp_path / "s")
    assert code == 3 and ".jpg: the model's loss is NaN or infinite" in err.splitlines()[-1]
    assert not (tmp_path / "s").exists()
