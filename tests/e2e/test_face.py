"""What a user meets first: help, how much is said on stderr, a dry run, and temperatures."""

import json
import math
import re
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

from entropy_cli.cli import COMMANDS
from entropy_cli.command import PANELS
from entropy_cli.entropy.quantity import HistoryPoint
from entropy_cli.runs.accumulate import running_estimate


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_short_help_in_groups(cli, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = cli(command, "-h")
    assert code == 0 and cli(command, "--help")[1] == out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "Example: entropy-cli" in out
    for option in ("-q, --quiet", "-v, --verbose", "-h, --help"):
        assert option in out
    headings = re.findall(r"^(\w+):$", out, re.MULTILINE)
    assert set(headings) <= {"Arguments", *PANELS} and headings[-1] == "Output"
    assert not re.search(r"[<{]list|\.{4}|-$", out, re.MULTILINE)
    (summary,) = re.findall(f"^  {command} +(.*)", cli("-h")[1], re.MULTILINE)
    assert summary in out  # whole


def test_estimates_options_are_grouped(cli):
    _, out, _ = cli("estimate", "-h")
    parts = dict(re.findall(r"^(\w+):\n(.*?)(?=^\w+:$|\Z)", out, re.MULTILINE | re.DOTALL))
    assert list(parts) == ["Input", "Tokenizer", "Compute", "Stopping", "Output"]
    for panel, option in (
        ("Input", "--data"),
        ("Tokenizer", "--temperature-from"),
        ("Compute", "--device"),
        ("Stopping", "--target-ci"),
        ("Output", "--table"),
    ):
        assert re.search(rf"^  (-\w, )?{option} ", parts[panel], re.MULTILINE)


def test_the_shells_completion_knows_the_options():
    """As a shell asks for it, by the environment."""
    env = {"_ENTROPY_CLI_COMPLETE": "complete_bash", "COMP_WORDS": "entropy-cli estimate --tem"}
    done = subprocess.run(
        [sys.executable, "-c", "from entropy_cli.cli import app; app(prog_name='entropy-cli')"],
        env={"PATH": "/usr/bin:/bin", **env, "COMP_CWORD": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["--temperature", "--temperature-from"], done.stderr


@pytest.fixture
def run(cli, images, checkpoint, tmp_path):
    """Run a short estimate with other options; gives its exit code, stdout and stderr."""

    def run(*options):
        argv = ("--data", images, "--ckpt", checkpoint, "--workers", 0, "--limit", 20)
        return cli("estimate", *argv, "-o", tmp_path / "r.json", *options)

    return run


def test_stderr_says_what_is_read_and_what_was_written(run, tmp_path):
    code, out, err = run()
    assert code == 0
    assert "var, scales 1,2,4,8; cpu, fp32; T = 1, auto; 20 images in batches of 16, 0 workers" in err
    assert err.splitlines()[-1] == f"wrote {tmp_path / 'r.json'}"
    assert "building the tokenizer" not in err
    assert "images" in out and "wrote" not in out


def test_quiet_is_errors_alone(run, tmp_path):
    code, out, err = run("--quiet")
    assert (code, err) == (0, "") and "assignment entropy" in out
    code, out, err = run("-q", "--split", "val")
    assert (code, out) == (3, "") and err.startswith("error: ") and len(err.splitlines()) == 1


def test_messages_wrap_at_words_on_a_terminal_alone(run, monkeypatch):
    _, _, line = run("-q", "--split", "val")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    lines = run("-q", "--split", "val")[2].splitlines()
    assert lines[1:] and all(len(line) <= 60 or " " not in line.strip() for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])
    assert " ".join(map(str.strip, lines)) == line.strip()


def test_verbose_adds_stages_and_what_detection_saw(run):
    _, _, err = run("-v")
    assert re.search(r"building the tokenizer of .*: \d+\.\d\d s", err)
    assert "family var: has quantize.quant_resi" in err
    assert re.search(r"reading images: \d+\.\d\d s", err)
    assert "building the tokenizer" not in run()[2]  # and the next command is as before


def test_a_dry_run_computes_nothing_and_saves_nothing(run, tmp_path):
    code, out, _ = run("--dry-run")
    assert code == 0 and not (tmp_path / "r.json").exists()
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    text = " ".join(out.split())
    for words in (
        "var; has quantize.quant_resi",
        "48 of 6 dimensions, l2 rule",
        "20 of 70",
        "85 an image, 1,700 in all",
        "1, auto; auto is fitted to the first 20",
        "cpu, fp32, batches of 16, 0 workers",
        "ms to decode",
        "MiB",
    ):
        assert words in text
    assert all(len(line) <= 80 for line in out.splitlines())


@pytest.mark.parametrize("batch_size", [3, 16, 32])
def test_a_dry_run_times_every_size_of_batch(run, batch_size):
    code, out, _ = run("--dry-run", "--batch-size", batch_size)
    (decode_ms, compute_ms) = re.findall(r"([\d.]+)\s+ms", out)
    assert code == 0 and float(decode_ms) > 0 and float(compute_ms) > 0


def test_a_dry_run_of_a_shard_is_of_its_own_images(run):
    """Of a block of 16 and one of 4; the temperature is fitted to the first of the whole run."""
    for shard, images in (("0/2", 16), ("1/2", 4)):
        code, out, _ = run("--dry-run", "--shard", shard)
        text = " ".join(out.split())
        assert code == 0 and f"images {images} of 70" in text and "fitted to the first 20" in text


@pytest.mark.parametrize(("workers", "expected"), [(0, 26), (1, 24), (4, 6), (20, 2)])
def test_a_dry_run_expects_workers_to_decode_beside_the_model(run, monkeypatch, workers, expected):
    """20 images of 1.2 s to decode and 0.1 s to compute."""
    from entropy_cli.runs import dry_run

    monkeypatch.setattr(dry_run, "_time_batch", lambda *_: (1.2, 0.1))
    assert f"about 0:00:{expected:02}:" in " ".join(run("--dry-run", "--workers", workers)[1].split())


def test_temperatures_mix_and_the_first_is_the_headline(estimate, images, checkpoint):
    run = ("--data", images, "--ckpt", checkpoint, "--limit", 40)
    mixed = estimate(*run, "--temperature", "auto,0.5,1")
    assert mixed["settings"]["temperature"] == "auto"
    assert [at["temperature"] for at in mixed["temperatures"]] == ["auto", 0.5, 1]
    alone = [estimate(*run, "--temperature", t) for t in ("auto", "0.5", "1")]
    for at, other in zip(mixed["temperatures"], alone, strict=True):
        for kind, average in at["average"].items():
            expected = other["temperatures"][0]["average"][kind]
            for name in ("assignment_entropy", "marginal_entropy"):
                value = expected[name]["value"]
                assert average[name]["value"] == pytest.approx(value, abs=1e-9)
        assert [scale["temperature"] for scale in at["scales"]] == [
            scale["temperature"] for scale in other["scales"]
        ]
    implied = mixed["provenance"]["temperature_implied"]
    assert implied == pytest.approx(alone[0]["provenance"]["temperature_implied"])


def test_the_fitted_temperature_counts_the_same_wherever_it_stands(estimate, images, checkpoint):
    run = ("--data", images, "--ckpt", checkpoint, "--limit", 40)
    first, last = estimate(*run, "--temperature", "auto,1"), estimate(*run, "--temperature", "1,auto")
    assert first["temperatures"] == last["temperatures"][::-1]
    implied = [result["provenance"]["temperature_implied"] for result in (first, last)]
    assert implied[0] == pytest.approx(implied[1])


def test_frozen_temperatures_are_another_runs(cli, estimate, images, checkpoint, tmp_path):
    run = ("--data", images, "--ckpt", checkpoint)
    pilot = estimate(*run, "--limit", 20, "--temperature", "1,auto", "-o", tmp_path / "pilot.json")
    frozen = estimate(*run, "--temperature-from", tmp_path / "pilot.json")
    for at, source in zip(frozen["temperatures"], pilot["temperatures"], strict=True):
        assert at["temperature"] == source["temperature"]
        assert [s["temperature"] for s in at["scales"]] == [s["temperature"] for s in source["scales"]]
    own = estimate(*run)
    assert frozen["temperatures"][1]["scales"] != own["temperatures"][1]["scales"]
    assert frozen["temperatures"][0] == own["temperatures"][0]
    assert "frozen from" in frozen["settings"]["temperature_source"]
    # How they were fitted comes with them, and how far all images would move them.
    assert frozen["provenance"]["temperature_fit"] == pilot["provenance"]["temperature_fit"]
    assert own["provenance"]["temperature_implied"] != frozen["provenance"]["temperature_implied"]
    (drift,) = (check for check in frozen["checks"] if check["id"] == "temperature_drift")
    assert drift["severity"] in ("care", "ok")
    # Shards of it are of one run, and fit nothing.
    states = [tmp_path / f"{i}.state" for i in range(2)]
    for i, state in enumerate(states):
        options = ("--temperature-from", tmp_path / "pilot.json", "--shard", f"{i}/2")
        estimate(*run, *options, "--state", state)
    code, out, _ = cli("merge", *states, "--json")
    merged = json.loads(out)
    assert code == 0 and merged["average"] == frozen["average"]
    implied = [one["provenance"]["temperature_implied"] for one in (merged, frozen)]
    assert implied[0] == pytest.approx(implied[1])


def test_frozen_temperatures_have_to_fit(cli, images, checkpoint, tmp_path):
    run = ("estimate", "--data", images, "--ckpt", checkpoint, "--limit", 20, "--workers", 0)
    assert cli(*run, "--patch-nums", "1,8", "-o", tmp_path / "other.json")[0] == 0
    code, _, err = cli(*run, "--temperature-from", tmp_path / "other.json")
    assert code == 3 and "scales 1 x 1, 8 x 8" in err and "1 x 1, 2 x 2, 4 x 4" in err
    assert cli(*run, "-o", tmp_path / "same.json")[0] == 0
    for name, value, words in (
        ("rule", "cosine", "rule cosine"),
        ("vocab_size", 49, "49 codes"),
        ("latent_dim", 7, "7 dimensions"),
    ):
        content = json.loads((tmp_path / "same.json").read_text())
        content["tokenizer"][name] = value
        (tmp_path / "changed.json").write_text(json.dumps(content))
        code, _, err = cli(*run, "--temperature-from", tmp_path / "changed.json")
        assert code == 3 and words in err
    (tmp_path / "none.json").write_text("{}")
    assert cli(*run, "--temperature-from", tmp_path / "none.json")[0] == 3
    code, _, err = cli(*run, "--temperature", 1, "--temperature-from", tmp_path / "other.json")
    assert code == 2 and "--temperature-from" in err
    code, _, err = cli(
        *run, "--temperature-from", tmp_path / "other.json", "-o", tmp_path / "other.json"
    )
    assert code == 3 and "same file" in err


def test_temperatures_of_another_checkpoint_are_refused(cli, images, checkpoint, tmp_path):
    tensors = load_file(checkpoint)
    name = next(name for name in tensors if name == "encoder.conv_in.weight")
    (tmp_path / "config.json").write_bytes(checkpoint.with_name("config.json").read_bytes())
    save_file({**tensors, name: tensors[name] * 2}, tmp_path / "other.safetensors")
    run = ("estimate", "--data", images, "--limit", 20, "--workers", 0, "--ckpt")
    assert cli(*run, checkpoint, "-o", tmp_path / "r.json")[0] == 0
    assert cli(*run, checkpoint, "--temperature-from", tmp_path / "r.json")[0] == 0
    code, _, err = cli(*run, tmp_path / "other.safetensors", "--temperature-from", tmp_path / "r.json")
    assert code == 3 and "is of another checkpoint" in err


def test_quiet_hides_warnings_too(cli, images, checkpoint, tmp_path):
    for path in sorted(images.rglob("*.jpg"))[:3]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    run = ("estimate", "--data", tmp_path, "--ckpt", checkpoint, "--workers", 0, "--max-failed", 1)
    assert "warning: unreadable: broken.jpg" in cli(*run)[2]
    code, _, err = cli(*run, "-q", "--temperature", 0.5)
    assert (code, err) == (0, "")


def test_only_what_was_asked_for_is_announced(run, tmp_path):
    _, _, err = run("--state", tmp_path / "run.state", "--save-every", 0)
    assert (tmp_path / "run.state").exists()
    assert [line for line in err.splitlines() if "wrote" in line] == [f"wrote {tmp_path / 'r.json'}"]


def test_the_running_estimate_stays_within_0_and_ln_v():
    point = HistoryPoint(16, 0.68, 0.05, 0.05)
    assert running_estimate(point, math.log(2)) == "0.68 (0.63 to 0.69)"
    assert running_estimate(HistoryPoint(16, 0.01, 0.05, 0.05), 1.0) == "0.01 (0.00 to 0.06)"
    assert running_estimate(HistoryPoint(1, 0.5, None, None), 1.0) == "0.50"


@pytest.mark.parametrize("labels, shows_share", [("hard", False), ("unknown", True)])
def test_a_log_of_hard_labels_gets_no_share_of_a_floor(cli, run, tmp_path, labels, shows_share):
    assert run()[0] == 0
    content = json.loads((tmp_path / "r.json").read_text())
    content["tokenizer"]["labels"] = labels
    (tmp_path / "floor.json").write_text(json.dumps(content))
    rows = [f"{step},{2.8 / step + 1:.4f}" for step in range(1, 60)]
    (tmp_path / "log.csv").write_text("\n".join(["step,train_loss", *rows]))
    code, out, _ = cli("monitor", tmp_path / "log.csv", "--floor", tmp_path / "floor.json")
    assert code == 0 and ("share left" in out) == shows_share and ("CE - A" in out) != shows_share
