"""A training that is killed, stopped or diverges loses nothing: --resume ends as if nothing had been."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
import torch

from entropy_cli.cli import main
from entropy_cli.commands.train.log import TrainingLog
from entropy_cli.commands.train.trainer import Trainer
from entropy_cli.images.synthetic import write_image_folder
from tests.conftest import python, subprocess_environment
from tests.trainings import SMALL, entries, last_line, same_weights, steps, weights

STEPS = 24


@pytest.fixture
def train(cli, folder, tmp_path):
    """A training in this process; gives its exit code, stdout and stderr."""

    def run(*options, out=tmp_path / "out", data=folder):
        return cli("train", "--data", data, "--output", out, *SMALL, *options)

    return run


@pytest.fixture
def start(folder, tmp_path):
    """A training in its own process."""
    started = []

    def run(*options, out=tmp_path / "out"):
        argv = [*python(), "-m", "entropy_cli", "train", "--data", folder, "--output", out, *SMALL]
        process = subprocess.Popen(
            [str(part) for part in (*argv, *options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**subprocess_environment(tmp_path), "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def wait_for_step(out, number, process):
    """Wait until metrics.jsonl tells of a step."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        path = out / "metrics.jsonl"
        if path.exists() and path.read_text().count('"loss"') >= number:
            return
        time.sleep(0.01)
    pytest.fail(f"the training ended or hung: {process.communicate()}")


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out, err


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--norm", "batch", "--grad-accum-steps", 2, "--ema-decay", 0.99),
        ("--codebook", "gradient", "--revive-every", 3, "--codebook-decay", 0.5, "--vocab-size", 100),
    ],
    ids=str,
)
def test_killed_and_resumed_equals_unbroken(start, tmp_path, options):
    options = (*options, "--steps", STEPS, "--eval-every", 7, "--log-every", 2)
    whole, out = tmp_path / "whole", tmp_path / "out"
    finish(start(*options, out=whole))
    process = start(*options)
    wait_for_step(out, 8, process)  # step 16, after two saves
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    _, err = finish(start(*options, "--resume"))
    assert "resuming from step" in err
    assert entries(out) == entries(whole)
    assert same_weights(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143)])  # of SIGINT: test_resume.py
def test_a_signal_saves_at_once(start, tmp_path, number, code):
    options = ("--steps", STEPS, "--eval-every", STEPS)
    out = tmp_path / "out"
    process = start(*options)
    wait_for_step(out, 3, process)
    assert not (out / "trainer.pt").exists()
    process.send_signal(number)
    text, err = process.communicate(timeout=60)
    assert process.returncode == code and text == ""
    assert last_line(err) == (
        f"error: interrupted by {number.name}; to resume, run the same command with --resume"
    )
    assert {"trainer.pt", "model.safetensors", "config.json"} <= {path.name for path in out.iterdir()}
    finish(start(*options, "--resume"))
    finish(start(*options, out=tmp_path / "whole"))
    assert entries(out) == entries(tmp_path / "whole")
    assert same_weights(out, tmp_path / "whole")


@pytest.fixture
def signal_after(monkeypatch):
    """SIGTERM arrives in this process at the end of a step."""
    step = Trainer.step

    def stop_after(number):
        def noted(self, *args, **given):
            metrics = step(self, *args, **given)
            if self.steps_done == number:
                os.kill(os.getpid(), signal.SIGTERM)
            return metrics

        monkeypatch.setattr(Trainer, "step", noted)

    return stop_after


@pytest.mark.parametrize("number", [2, 4])
def test_a_signal_in_the_last_steps_says_that_all_is_saved(train, signal_after, tmp_path, number):
    signal_after(number)
    code, _, err = train("--steps", 4, "--eval-every", 1)
    assert code == 143
    assert "to resume, run the same command with --resume" in last_line(err)
    assert torch.isfinite(weights(tmp_path / "out")["quantize.embedding.weight"]).all()


def test_a_signal_before_the_first_step_saves_nothing(train, monkeypatch):
    monkeypatch.setattr(Trainer, "init_codebook", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    code, _, err = train("--steps", 4)
    assert code == 143 and last_line(err) == "error: interrupted by SIGTERM, nothing is saved"


@pytest.mark.parametrize(
    "options, words",
    [
        (["--lr", 1e-3], "lr 0.0015, this command has 0.001"),
        (["--vocab-size", 25], "--vocab-size 24, this command has 25"),
        (["--seed", 3], "seed 0, this command has 3"),
        (["--norm", "batch"], "norm group, this command has batch"),
        (["--width-mult", "2,1,1"], "--width-mult [1, 1, 1], this command has [2, 1, 1]"),
        (["--precision", "bf16"], "precision fp32, this command has bf16"),
    ],
)
def test_resumed_with_another_option_is_an_error_that_names_it(train, options, words):
    assert train("--steps", 2)[0] == 0
    code, out, err = train("--steps", 4, "--resume", *options)
    assert code == 3 and out == "" and words in last_line(err)


def test_resumed_on_other_images_is_an_error(train, tmp_path):
    write_image_folder(tmp_path / "data", images=31, size=22, seed=1)
    assert train("--steps", 2)[0] == 0
    code, _, err = train("--steps", 4, "--resume", data=tmp_path / "data")
    assert code == 3 and "other images" in last_line(err)


def test_more_steps_are_resumed(train, tmp_path):
    assert train("--steps", 3)[0] == 0
    code, out, _ = train("--steps", 5, "--resume", "--json")
    assert code == 0 and json.loads(out)["steps"] == 5
    assert [entry["step"] for entry in steps(tmp_path / "out")] == [1, 2, 3, 4, 5]


def test_resume_of_a_finished_training_gives_the_result_again(train, tmp_path):
    first = json.loads(train("--steps", 3, "--json")[1])
    before = weights(tmp_path / "out")
    saved = torch.load(tmp_path / "out" / "trainer.pt", weights_only=False)  # noqa: TID251 - our own
    code, out, err = train("--steps", 3, "--json", "--resume")
    again = json.loads(out)
    assert code == 0 and "resuming from step 3 of 3" in err
    assert saved["seconds"] < min(first["seconds"], again["seconds"])
    for result in (first, again):
        del result["provenance"], result["seconds"]
    assert again == first
    assert all(weight.equal(before[name]) for name, weight in weights(tmp_path / "out").items())


def test_resume_in_an_empty_folder_begins(train):
    code, out, _ = train("--steps", 2, "--resume", "--json")
    assert code == 0 and json.loads(out)["steps"] == 2


@pytest.mark.parametrize("damage", ["half", "empty", "other", "checkpoint"])
def test_a_damaged_state_is_one_line(train, tmp_path, damage):
    assert train("--steps", 2)[0] == 0
    path = tmp_path / "out" / "trainer.pt"
    whole = path.read_bytes()
    contents = {"half": whole[: len(whole) // 2], "empty": b"", "other": b"something else"}
    contents["checkpoint"] = (tmp_path / "out" / "model.safetensors").read_bytes()
    path.write_bytes(contents[damage])
    code, out, err = train("--steps", 4, "--resume")
    assert code == 3 and out == "" and "Traceback" not in err
    assert str(path) in last_line(err)
    assert path.read_bytes() == contents[damage]


def test_two_trainings_in_one_folder_are_kept_apart(train, start, tmp_path):
    process = start("--steps", 2000)
    wait_for_step(tmp_path / "out", 1, process)
    code, _, err = train("--steps", 2)
    assert code == 3 and "another run" in last_line(err)


def test_what_a_killed_save_left_is_cleared(train, tmp_path, monkeypatch):
    """A save that never comes back, as when the process is killed in it."""
    assert train("--steps", 2)[0] == 0
    files = set((tmp_path / "out").iterdir())

    def never(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
    for call in range(3):
        calls = []

        def replace(self, target, calls=calls, last=call):
            calls.append(target)
            return self.rename(target) if len(calls) <= last + 1 else never()

        monkeypatch.setattr("pathlib.Path.replace", replace)
        assert train("--steps", 3 + call, "--resume")[0] == 130
    monkeypatch.undo()
    assert len(set((tmp_path / "out").iterdir()) - files) >= 3
    assert train("--steps", 7, "--resume")[0] == 0
    assert set((tmp_path / "out").iterdir()) == files


def test_divergence_is_one_line_and_leaves_a_finite_tokenizer(train, tmp_path):
    code, out, err = train(
        "--steps", 60, "--eval-every", 1, "--lr", 1e9, "--grad-clip", 1e12, "--norm", "batch"
    )
    assert code == 3 and out == "" and "Traceback" not in err
    assert "Try a lower --lr" in last_line(err)
    assert all(weight.isfinite().all() for weight in weights(tmp_path / "out").values())
    assert entries(tmp_path / "out")[-1]["diverged"] == 1


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_divergence_before_the_first_save_leaves_one(train, tmp_path, monkeypatch, codebook):
    """The loss is made infinite, so that it happens where it is wanted."""
    backward = Trainer._backward

    def broken(self, *args):
        losses, *rest = backward(self, *args)
        return (losses * (float("nan") if self.steps_done == 2 else 1), *rest)

    monkeypatch.setattr(Trainer, "_backward", broken)
    code, _, err = train("--steps", 9, "--eval-every", 9, "--codebook", codebook)
    assert code == 3 and last_line(err).startswith("error: step 3: the loss, its gradient")
    assert all(weight.isfinite().all() for weight in weights(tmp_path / "out").values())
    monkeypatch.undo()
    assert train("--steps", 9, "--eval-every", 9, "--codebook", codebook, "--resume")[0] == 0


def test_a_training_killed_while_it_draws_has_saved(train, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("entropy_cli.commands.train.log.draw_reconstructions", killed)
        assert train("--steps", 4, "--eval-every", 2)[0] == 130
    code, _, err = train("--steps", 4, "--eval-every", 2, "--resume")
    assert code == 0 and "resuming from step 2 of 4" in err
    assert train("--steps", 4, "--eval-every", 2, out=tmp_path / "whole")[0] == 0
    assert same_weights(tmp_path / "out", tmp_path / "whole")


def test_seconds_are_of_all_the_work(train, monkeypatch):
    """With the initialization of codes and the figures."""
    for place in (Trainer, "init_codebook"), (TrainingLog, "draw"):
        monkeypatch.setattr(*place, lambda *_: time.sleep(0.2))
    out = train("--steps", 1, "--init", "uniform", "--json")[1]
    assert json.loads(out)["seconds"] > 0.4


def test_collapse_is_named(train, tmp_path):
    code, _, err = train(
        *("--codebook", "gradient", "--init", "uniform", "--revive-every", 0, "--vocab-size", 4096),
        *("--steps", 20, "--lr", 1e-2, "--batch-size", 2),
    )
    assert code == 0
    assert "codebook collapse: only" in err and "--codebook ema" in err
    code, _, err = train("--steps", 20, out=tmp_path / "healthy")
    assert code == 0 and "collapse" not in err


DAMAGES = {
    "an empty recipe": lambda state: state.update(recipe={}, data=None),
    "no data": lambda state: state.pop("data"),
    "no seconds": lambda state: state.pop("seconds"),
    "negative seconds": lambda state: state.update(seconds=-1.0),
    "no model": lambda state: state["trainer"].pop("model"),
    "a model of another shape": lambda state: state["trainer"]["model"].update(
        {"quant_conv.bias": torch.zeros(1)}
    ),
    "a model with NaN": lambda state: state["trainer"]["model"]["quant_conv.bias"].fill_(torch.nan),
    "steps in words": lambda state: state["trainer"].update(done="x"),
    "negative steps": lambda state: state["trainer"].update(done=-5),
    "no averages": lambda state: state["trainer"].pop("average"),
    "no optimizer": lambda state: state["trainer"].pop("optimizer"),
    "moments of another shape": lambda state: state["trainer"]["optimizer"]["state"][0].update(
        exp_avg=torch.zeros(1)
    ),
    "codes of another shape": lambda state: state["trainer"]["codes"].update(count_V=torch.zeros(1)),
}


@pytest.fixture(scope="module")
def two_steps(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "out"
    assert main(["train", "--data", str(folder), "--output", str(out), *SMALL, "--steps", "2"]) == 0
    return out


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_refused_in_one_line(two_steps, train, tmp_path, damage):
    out = shutil.copytree(two_steps, tmp_path / "out")
    state = torch.load(out / "trainer.pt", weights_only=False)  # noqa: TID251 - our own
    DAMAGES[damage](state)
    torch.save(state, out / "trainer.pt")
    code, _, err = train("--steps", "3", "--resume", out=out)
    assert code == 3 and "Traceback" not in err
    assert any(words in last_line(err) for words in ("not the state of a training", "--resume: the "))


@pytest.mark.parametrize("content", [b"\xff\xfe", b'{"step": 1' + b"0" * 400 + b"}\n"])
def test_damaged_metrics_are_refused_or_dropped(two_steps, train, tmp_path, content):
    out = shutil.copytree(two_steps, tmp_path / "out")
    (out / "metrics.jsonl").write_bytes(content)
    code, _, err = train("--steps", "3", "--resume", out=out)
    assert code in (0, 3) and "Traceback" not in err
    assert (code == 3) == (content[0] == 0xFF)
