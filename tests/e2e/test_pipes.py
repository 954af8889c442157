"""Pipes are read once and to their end, or refused in one line; nothing waits for ever."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from entropy_cli.core import reading
from tests.conftest import subprocess_environment
from tests.e2e.test_fit import TWELVE, write

LOG = "".join(
    f"step {i}: train loss {5 - i / 1000:.4f}, val loss {5 - i / 1000:.4f}\n" for i in range(2000)
)


@pytest.fixture
def piped(tmp_path):
    """A named pipe that some bytes are written to, in pieces with pauses between."""
    threads = []

    def make(content, pieces=1, pause=0.0, name="pipe"):
        path = tmp_path / name
        os.mkfifo(path)

        def feed():
            with path.open("wb", buffering=0) as pipe:
                for i in range(pieces):
                    time.sleep(pause)
                    pipe.write(content[len(content) * i // pieces : len(content) * (i + 1) // pieces])

        threads.append(threading.Thread(target=feed, daemon=True))
        threads[-1].start()
        return path

    yield make
    for thread in threads:
        thread.join(10)


@pytest.fixture
def monitor(cli):
    """What `monitor --json` finds, but for the name of the log."""

    def run(log, *argv):
        code, out, err = cli("monitor", "--json", log, *argv)
        assert code == 0, err
        return {name: value for name, value in json.loads(out).items() if name != "log"}

    return run


@pytest.fixture
def expected(monitor, tmp_path):
    """Of an ordinary file, longer than any buffer."""
    (tmp_path / "log.txt").write_text(LOG)
    found = monitor(tmp_path / "log.txt")
    assert len(LOG) > 2**16 and found["series"][0]["first"] == 5
    return found


def test_monitor_reads_a_named_pipe_from_its_first_byte(monitor, piped, expected):
    assert monitor(piped(LOG.encode())) == expected


def test_a_writer_that_pauses_is_waited_for(monitor, piped, expected, monkeypatch):
    monkeypatch.setattr(reading, "WRITER_TIMEOUT_S", 0.05)
    assert monitor(piped(LOG.encode(), pieces=3, pause=0.3)) == expected


def test_monitor_reads_standard_input(monitor, expected, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LOG.encode())))
    assert monitor("-") == expected


@pytest.mark.parametrize("log", ["<(cat log.txt)", "- < <(cat log.txt)", "/dev/stdin < <(cat log.txt)"])
def test_pipes_of_a_shell(expected, tmp_path, log):
    command = f"{sys.executable} -m entropy_cli monitor --json {log}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=subprocess_environment(tmp_path) | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert expected.items() <= json.loads(done.stdout).items()


def test_what_can_not_come_through_a_pipe_is_told(cli, piped, tmp_path, monkeypatch):
    events = b"\x18" + bytes(11) + b"brain.Event:2" + bytes(99)
    code, _, err = cli("monitor", piped(events))
    assert code == 3 and "TensorBoard events from a pipe" in err
    monkeypatch.setattr(sys, "stdin", None)
    code, _, err = cli("monitor", "-")
    assert code == 3 and "standard input is closed" in err
    for log in ("-", tmp_path / "pipe"):
        code, _, err = cli("monitor", log, "--follow")
        assert code == 2 and "--follow" in err and "which can't be read again" in err


def test_points_and_results_come_through_pipes(cli, piped, images, checkpoint, tmp_path):
    table, result = write(tmp_path / "t.csv", TWELVE, 5 + TWELVE**-0.2), tmp_path / "r.json"
    options = ("--limit", 16, "--workers", 0, "-o", result)
    cli("estimate", "--data", images, "--ckpt", checkpoint, *options)
    results = result.read_bytes()
    argv = ("--json", "--bootstrap", 0, "--floor")
    expected = json.loads(cli("fit", table, *argv, result)[1])
    pipes = piped(table.read_bytes(), name="table"), piped(results, name="floor")
    code, out, err = cli("fit", pipes[0], *argv, pipes[1])
    assert code == 0, err
    found = json.loads(out)
    assert found["parameters"] == expected["parameters"]
    assert found["floor"]["value"] == expected["floor"]["value"]
    code, _, err = cli("report", piped(results, name="result"), "-o", tmp_path / "r.md")
    assert code == 0 and "nats" in (tmp_path / "r.md").read_text(), err


@pytest.fixture
def special(tmp_path, checkpoint):
    """Folders in which something is a pipe without a writer, or an endless device."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for name in ("model", "config", "zero", "pipeline/vqvae", "events", "index"):
        (tmp_path / name).mkdir(parents=True)
    os.mkfifo(tmp_path / "model/model.safetensors")
    os.mkfifo(tmp_path / "config/config.json")
    os.mkfifo(tmp_path / "index/model.safetensors.index.json")
    (tmp_path / "zero/config.json").symlink_to("/dev/zero")
    for name in ("config", "zero"):
        shutil.copy(checkpoint, tmp_path / name / "m.safetensors")
    (tmp_path / "pipeline/model_index.json").write_text("{}")
    os.mkfifo(tmp_path / "pipeline/vqvae/config.json")
    os.mkfifo(tmp_path / "events/events.out.tfevents.1")
    return tmp_path


@pytest.mark.parametrize(
    "argv, words",
    [
        (["inspect", "model"], "model.safetensors: can't be read: not an ordinary file"),
        (["inspect", "index"], "not an ordinary file"),
        (["inspect", "fifo"], "is not a file or folder"),
        (["inspect", "config/m.safetensors"], "not an ordinary file"),
        (["inspect", "zero/m.safetensors"], "not an ordinary file"),
        (["inspect", "pipeline"], "is a whole pipeline"),
        (["monitor", "fifo"], "a pipe that nobody wrote to"),
        (["monitor", "/dev/zero"], "not an ordinary file"),
        (["monitor", "events"], "not a regular file"),
        (["fit", "fifo"], "a pipe that nobody wrote to"),
        (["fit", "/dev/zero"], "not an ordinary file"),
        (["report", "fifo", "-o", "r.md"], "a pipe that nobody wrote to"),
        (["report", "/dev/zero", "-o", "r.md"], "not an ordinary file"),
        (["loss", "--logits", "x.npy", "--labels", "y.npy", "--floor", "fifo"], "nobody wrote to"),
        (["loss", "--logits", "fifo", "--labels", "y.npy"], "is no ordinary file"),
        (["merge", "fifo"], "is no ordinary file"),
        (["show", "fifo", "--ckpt", "zero/m.safetensors"], "not an ordinary file"),
        (["estimate", "--data", ".", "--ckpt", "m", "--state", "fifo"], "expected an ordinary file"),
        (["estimate", "--latents", "fifo", "--codebook", "fifo"], "is no ordinary file"),
    ],
)
def test_special_files_are_refused_at_once(cli, special, monkeypatch, argv, words):
    monkeypatch.setattr(reading, "WRITER_TIMEOUT_S", 0.05)
    monkeypatch.chdir(special)
    code, _, err = cli(*argv)
    assert code == 3 and words in err.splitlines()[-1] and err.splitlines()[-1].startswith("error: ")


def test_a_training_state_that_is_a_pipe(cli, tmp_path):
    os.mkfifo(tmp_path / "trainer.pt")
    code, _, err = cli("train", "--data", "synthetic", "--output", tmp_path, "--resume")
    assert code == 3 and "not an ordinary file" in err
