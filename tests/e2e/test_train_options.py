"""`train`: every option has an effect on the numbers, the weights, or the files."""

import inspect
import json

import pytest

from entropy_cli.commands.train.cli import train as command
from entropy_cli.tokenizers.layers.autoencoder import ResnetBlock
from entropy_cli.tokenizers.layers.vqvae import VQVAE
from tests.trainings import SMALL, entries, last_line, same_weights, steps, weights

# Of each option, what is given with it in both trainings, and the two values.
LEARNING = {
    "--batch-size": ([], 8, 4),
    "--image-size": ([], (16,), (12, "--patch-nums", "1,2,3")),
    "--patch-nums": ([], "1,2,4", "1,4"),
    "--vocab-size": ([], 24, 20),
    "--latent-dim": ([], 4, 5),
    "--width": ([], 32, 64),
    "--width-mult": ([], "1,1,1", "2,1,1"),
    "--blocks": ([], 1, 2),
    "--norm": ([], "group", "batch"),
    "--codebook": ([], "ema", "gradient"),
    "--codebook-decay": ([], 0.97, 0.5),
    "--init": ([], "kmeans", "uniform"),
    "--revive-every": (["--codebook-decay", 0, "--vocab-size", 500], 0, 1),
    "--beta": ([], 0.25, 1),
    "--l1": ([], 0.2, 0),
    "--l2": ([], 1, 2),
    "--lr": ([], 2e-3, 1e-3),
    "--warmup": ([], 2, 0),
    "--schedule": ([], "cosine", "staged"),
    "--final-lr": ([], 0.05, 0.9),
    "--weight-decay": ([], 0.005, 1),
    "--grad-clip": ([], 1, 0.01),
    "--ema-decay": ([], 0, 0.9),
    "--precision": ([], "fp32", "bf16"),
    "--seed": ([], 0, 1),
    "--steps": ([], 4, 5),
}
FILES_AND_MACHINES = {
    "--preset",
    "--grad-accum-steps",
    "--grad-checkpointing",
    "--eval-every",
    "--log-every",
    "--save-fp16",
}
FILES_AND_MACHINES |= {"--tensorboard", "--device"}
ELSEWHERE = {"--data", "--output", "--resume", "--workers", "--max-failed", "--as-json"}


@pytest.fixture
def train(cli, folder, tmp_path):
    """A training of four steps; gives its folder and result."""

    def run(*options, name="out"):
        out = tmp_path / name
        argv = ("--data", folder, "--output", out, *SMALL, "--steps", 4, "--eval-every", 4, "--json")
        code, text, err = cli("train", *argv, *options)
        assert code == 0, err
        return out, json.loads(text)

    return run


def test_every_option_is_tested():
    options = {f"--{name.replace('_', '-')}" for name in inspect.signature(command).parameters}
    assert options - {"--context"} == LEARNING.keys() | FILES_AND_MACHINES | ELSEWHERE


@pytest.mark.parametrize("option", LEARNING)
def test_what_is_learned_changes(train, option):
    shared, one, other = LEARNING[option]
    values = [value if isinstance(value, tuple) else (value,) for value in (one, other)]
    (a, _), (b, _) = (train(*shared, option, *value, name=str(value[0])) for value in values)
    assert not same_weights(a, b)


def test_the_same_options_learn_the_same(train):
    """Without which the others would show nothing."""
    (a, _), (b, _) = train(name="a"), train(name="b")
    assert same_weights(a, b) and entries(a) == entries(b)


def test_revival_brings_codes_to_life(train):
    options = ("--codebook-decay", 0, "--vocab-size", 500, "--steps", 10)
    without, _ = train(*options, "--revive-every", 0, name="without")
    with_it, _ = train(*options, "--revive-every", 2, name="with")
    assert {entry["revived"] for entry in steps(without)} == {0}
    revived = [entry["step"] for entry in steps(with_it) if entry["revived"]]
    assert revived == [2, 4, 6, 8]  # the last fifth of the steps is left to settle


def test_preset_is_the_default_of_the_others(train):
    (_, tiny), (_, var) = train(name="tiny"), train("--preset", "var", name="var")
    assert (tiny["settings"]["decay"], var["settings"]["decay"]) == (0.97, 0.99)
    assert (tiny["settings"]["average"], var["settings"]["average"]) == (0, 0.9999)
    assert tiny["settings"]["width"] == var["settings"]["width"] == 32


def test_accumulate_computes_fewer_pictures_at_once(train, monkeypatch):
    forward, seen = VQVAE.forward, {1: [], 2: []}
    trained = {}
    for parts, sizes in seen.items():

        def noted(self, img_B3HW, sizes=sizes):
            sizes.append(len(img_B3HW))
            return forward(self, img_B3HW)

        monkeypatch.setattr(VQVAE, "forward", noted)
        trained[parts], _ = train("--grad-accum-steps", parts, name=str(parts))
    assert (max(seen[1]), max(seen[2])) == (8, 4)
    for a, b in zip(steps(trained[1]), steps(trained[2]), strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_recompute_runs_blocks_again_and_learns_the_same(train, monkeypatch):
    run, calls = ResnetBlock._run, []

    def counted(self, x_BChw):
        calls.append(1)
        return run(self, x_BChw)

    monkeypatch.setattr(ResnetBlock, "_run", counted)
    plain, _ = train(name="plain")
    without = len(calls)
    recomputed, _ = train("--grad-checkpointing", name="recomputed")
    assert len(calls) - without > 1.3 * without
    assert entries(plain) == entries(recomputed)


def test_log_every_and_every(train):
    out, _ = train("--log-every", 3, "--eval-every", 2, "--steps", 5)
    found = [(entry["step"], "loss" in entry) for entry in entries(out)]
    assert found == [(2, False), (3, True), (4, False), (5, True), (5, False)]


def test_half_halves_the_file(train):
    (whole, _), (half, _) = train(name="whole"), train("--save-fp16", name="half")
    sizes = [(out / "model.safetensors").stat().st_size for out in (whole, half)]
    assert sizes[1] < 0.55 * sizes[0]
    for name, weight in weights(whole).items():
        counts = name == "quantize.ema_vocab_hit_SV"  # which may be too large for it
        assert (weight if counts else weight.half()).equal(weights(half)[name])


def test_device(train, cli, folder, tmp_path, monkeypatch):
    assert "cpu" in train("--device", "cpu")[1]["provenance"]["device"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    argv = ("--data", folder, "--output", tmp_path / "other", *SMALL, "--device", "cuda")
    code, _, err = cli("train", *argv)
    assert code == 3 and "cuda" in last_line(err).lower()


def test_tensorboard_writes_events(train):
    pytest.importorskip("tensorboard")
    out, _ = train("--tensorboard")
    (events,) = (out / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"train/loss" in content and b"held_out/psnr_db" in content


def test_tensorboard_that_is_missing_says_how_to_install_it(cli, tmp_path, monkeypatch):
    """Before the images are looked for."""
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    argv = ("--data", tmp_path / "nowhere", "--output", tmp_path / "out", *SMALL, "--tensorboard")
    code, _, err = cli("train", *argv)
    assert code == 3 and "pip install" in last_line(err) and not (tmp_path / "out").exists()
