"""Files that are written: nothing else is lost for them, and they are not lost themselves."""

import errno
import json
import os
import resource
import shutil

import pytest

from entropy_cli.core import files
from entropy_cli.core.errors import ResultError
from entropy_cli.core.files import check_files, check_writable, write_text


@pytest.fixture
def run(images, checkpoint, tmp_path, cli, monkeypatch):
    """A short estimate in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    options = ("--data", images, "--ckpt", checkpoint, "--limit", 16, "--workers", 0, "--temperature", 1)
    return lambda *more: cli("estimate", *options, *more)


FOREIGN = '{"schema": "mine", "by": "not entropy-cli/"}'
OUTPUTS = ["-o r.json", "-o r", "--report r.html", "--report r.png", "--report r.md", "--report r.csv"]
OUTPUTS += ["--report r.svg", "--report r.pdf", "--save-tokens r.npy"]


@pytest.mark.parametrize("output", OUTPUTS)
def test_only_the_program_s_own_files_are_replaced_unasked(run, tmp_path, output):
    option, name = output.split()
    (tmp_path / name).write_text(FOREIGN if name == "r.json" else "mine")
    before = (tmp_path / name).read_bytes()
    code, out, err = run(option, name)
    assert (code, out) == (3, "") and (tmp_path / name).read_bytes() == before
    assert err.splitlines()[-1].startswith(f"error: {option.replace('-o', '--output')} {name}: exists")
    assert "no output of entropy-cli" in err and "--overwrite" in err
    assert run(option, name, "--overwrite")[0] == 0
    assert run(option, name)[0] == 0  # its own by now
    (tmp_path / name).write_bytes(b"")  # as mktemp makes them
    (tmp_path / "r.paths.txt").unlink(missing_ok=True)
    assert run(option, name)[0] == 0


@pytest.mark.parametrize("link", [shutil.copy, os.symlink, os.link])
def test_an_input_is_not_written_over_by_any_of_its_names(run, cli, tmp_path, link):
    assert run("-o", "result.json", "--shard", "0/1", "--state", "s")[0] == 0
    link("result.json", "other.json")
    link("s", "t")
    expected = 0 if link is shutil.copy else 3
    for argv in (
        ["report", "result.json", "-o", "other.json.html"],  # nobody's
        ["merge", "s", "--state", "t"],
        ["merge", "s", "-o", "t", "--overwrite"],
    ):
        code, _, err = cli(*argv)
        assert code == (0 if "report" in argv else expected)
        assert code == 0 or "is the same file as" in err.splitlines()[-1]
    code, _, err = run("--temperature-from", "result.json", "-o", "other.json")
    assert code == 2  # both kinds of temperature


@pytest.mark.parametrize("name", ["new.png", "shapes/new.jpg", "new.parquet"])
def test_no_output_becomes_one_of_the_images(cli, images, checkpoint, tmp_path, name):
    data = tmp_path / "data"
    shutil.copytree(images, data)
    (data / "shapes").mkdir(exist_ok=True)
    estimate = ("estimate", "--data", data, "--ckpt", checkpoint, "--limit", 16, "--workers", 0)
    for option in ("-o", "--report", "--state"):
        code, _, err = cli(*estimate, option, data / name, "--overwrite")
        assert code == 3 and "whose images are read" in err.splitlines()[-1], err
    assert not (data / name).exists()
    (tmp_path / "x.tar").write_bytes(b"")
    code, _, err = cli(
        "estimate", "--data", tmp_path / "x.tar", "--ckpt", checkpoint, "-o", tmp_path / "x.tar"
    )
    assert code == 3 and "is the same file as --data" in err


def test_what_can_not_be_written_is_said_before_the_work(run, tmp_path):
    (tmp_path / "dangling").symlink_to("gone/there")
    (tmp_path / "file").write_text("")
    for name in ("n" * 300, "/proc/r.json", "file/r.json", "gone/r.json", ".", "dangling"):
        code, out, err = run("-o", name)
        assert (code, out, len(err.splitlines())) == (3, "", 1), (name, err)
        assert err.startswith("error: --output ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


@pytest.mark.parametrize("option", ["-o", "--state"])
def test_a_link_that_leads_to_itself_is_replaced(run, tmp_path, option):
    (tmp_path / "loop").symlink_to("loop")
    code, _, err = run(option, "loop")
    assert code == 0 and (tmp_path / "loop").is_file(), err


def test_a_full_disk_is_noticed_before_and_after(tmp_path):
    """A limit on the size of files fails as a full disk does, at the first byte that has no place."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    write_text(tmp_path / "r.json", "whole")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(ResultError, match="can't write in"):
            check_writable(tmp_path / "r.json", "--output")
        with pytest.raises(ResultError, match="can't be written"):
            write_text(tmp_path / "r.json", "half" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]


def test_a_result_is_printed_where_no_file_can_be_written(run, tmp_path, monkeypatch):
    """Each of them is tried, the state is kept, and the same command writes what was computed."""
    write, tried = files.write_atomically, []

    def full(path, *args, **options):
        if path.suffix in (".json", ".html"):
            tried.append(path.name)
            raise ResultError(f"{path}: can't be written: {os.strerror(errno.ENOSPC)}.")
        write(path, *args, **options)

    monkeypatch.setattr("entropy_cli.core.files.write_atomically", full)
    argv = ("-o", "r.json", "--report", "r.html", "--json")
    code, out, err = run(*argv)
    assert code == 3 and tried == ["r.json", "r.html"]
    assert err.splitlines()[-1] == (
        "error: r.json: can't be written: No space left on device. The same command writes it again."
    )
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert run(*argv)[0] == 0
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["provenance"]["images_resumed"] == 16 and (tmp_path / "r.html").exists()
    assert written["average"] == json.loads(out)["average"]


def test_a_state_that_can_not_be_saved_loses_no_result(run, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("entropy_cli.streaming.state_file.save_file", full)
    code, out, err = run("--json", "--save-every", 0)
    assert code == 0 and json.loads(out)["data"]["images_used"] == 16
    assert "can't be resumed from here" in err
    code, out, err = run("--json", "--state", "s")  # which was asked for
    assert code == 3 and json.loads(out)["data"]["images_used"] == 16
    assert "No space left" in err.splitlines()[-1] and not list(tmp_path.glob(".entropy*"))


def test_two_outputs_are_two_files(tmp_path):
    with pytest.raises(ResultError, match="same file as --output"):
        check_files([], [("--output", tmp_path / "a"), ("--report", tmp_path / "." / "a")])
