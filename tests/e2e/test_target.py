"""The answer without the whole set."""

import pytest

from entropy_cli.entropy import stopping


@pytest.fixture
def soon(monkeypatch):
    """Let a small set have images enough."""
    monkeypatch.setattr(stopping, "MIN_IMAGES", 20)
    monkeypatch.setattr(stopping, "MIN_IMAGES_PER_GROUP", 0)


def test_a_run_stops_when_it_is_precise_enough(soon, cli, estimate, images, checkpoint, baseline):
    run = ("--data", images, "--ckpt", checkpoint, "--batch-size", 4)
    widest = [entry["widest"] for entry in baseline["history"]]  # at 16, 32, 64 and 70 images
    target = max(widest[1:3])
    assert target < widest[0]
    result = estimate(*run, "--target-ci", target)
    assert result["target_reached"] is True
    assert result["data"]["images_used"] == 64 and result["data"]["images_found"] == 70
    assert [entry["images"] for entry in result["history"]] == [16, 32, 64]
    assert result["history"][-1]["widest"] <= target
    for kind in ("token_weighted", "over_scales", "last_scale"):
        low, high = result["average"][kind]["assignment_entropy"]["ci95"]
        assert (high - low) / 2 <= target * (1 + 1e-9)
    code, out, _ = cli("estimate", *run, "--workers", 0, "--target-ci", target)
    assert code == 0 and "64 of 70 images" in out and "reached its target" in " ".join(out.split())


def test_a_set_exhausted_first_is_no_error(cli, estimate, images, checkpoint, baseline):
    run = ("--data", images, "--ckpt", checkpoint, "--batch-size", 4, "--target-ci", 1e-6)
    result = estimate(*run)
    assert result["target_reached"] is False and result["data"]["images_used"] == 70
    assert result["average"] == baseline["average"]
    _, out, _ = cli("estimate", *run, "--workers", 0)
    assert "did not reach its target" in " ".join(out.split())
    assert baseline["target_reached"] is None


def test_a_few_images_are_never_enough_to_stop_but_all_of_them_are(estimate, images, checkpoint):
    result = estimate("--data", images, "--ckpt", checkpoint, "--target-ci", 1e6)
    assert result["target_reached"] is True and result["data"]["images_used"] == 70


def test_a_kept_state_goes_on_to_a_finer_target(soon, estimate, images, checkpoint, baseline, tmp_path):
    run = ("--data", images, "--ckpt", checkpoint, "--batch-size", 4, "--state", tmp_path / "s")
    coarse = estimate(*run, "--target-ci", 10)
    assert coarse["target_reached"] is True and coarse["data"]["images_used"] == 32
    again = estimate(*run, "--target-ci", 10)
    assert again["data"]["images_used"] == 32 and again["target_reached"] is True
    whole = estimate(*run)
    assert whole["data"]["images_used"] == 70 and whole["history"] == baseline["history"]


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "x"])
def test_what_is_no_target_is_wrong_usage(cli, images, checkpoint, text):
    code, _, err = cli("estimate", "--data", images, "--ckpt", checkpoint, f"--target-ci={text}")
    assert code == 2 and "target-ci" in err
