"""Files are opened once, in one place, and what changes under the reading is an error."""

import ast
import json
import os
import pickle
from pathlib import Path

import pytest

import entropy_cli
from entropy_cli.core.reading import JSON_DEPTH, OpenFile, parse_json, read_bytes, read_stream

PACKAGE = Path(entropy_cli.__file__).parent
OPENERS = {"open", "fdopen", "read_text", "read_bytes", "memmap", "fromfile", "safe_open", "load_file"}
# Methods and functions of the program itself that have these names, and files that are written.
OWN = {
    "core/reading.py": OPENERS,
    "core/files.py": {"open"},
    "cli.py": {"open"},
    "terminal.py": {"open"},
    "streaming/state_file.py": {"open"},
    "streaming/token_file.py": {"open"},
    "images/decode.py": {"open"},
    "commands/monitor/logs/read.py": {"read_text"},  # its own
    "tokenizers/checkpoints/arrays.py": {"open"},
    "tokenizers/checkpoints/stored.py": {"read_bytes"},  # a field
    "images/members.py": {"open"},
    "commands/guide/cli.py": {"read_text"},  # pages of the package
    "commands/train/result.py": {"open"},
    "commands/train/train.py": {"open"},
    "commands/train/log.py": {"open"},
    "api/callables.py": {"open"},
    "api/passes.py": {"open"},
}


def called_openers(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in OPENERS and not (name == "open" and opens_image_or_writes(node)):
                yield name


def opens_image_or_writes(node):
    """Pillow's and tarfile's `open` of a file that is open already, and the writing of files."""
    owner = getattr(getattr(node.func, "value", None), "id", "")
    modes = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
    return owner in ("Image", "tarfile", "webbrowser") or any(m in ("w", "wb", "a") for m in modes)


def test_everything_that_is_read_is_opened_in_one_place():
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        direct = set(called_openers(path))
        from_reading = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module == "entropy_cli.core.reading"
            for alias in node.names
        }
        assert direct <= OWN.get(name, set()) | from_reading, name


def test_a_file_that_shrinks_is_an_error(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(range(100)))
    file = OpenFile(path)
    assert file.read(3, 5) == b"\3\4" and file.reader(3, 2).read() == b"\3\4"
    os.truncate(path, 50)
    assert file.read(0, 50) == bytes(range(50))
    with pytest.raises(OSError, match="changed or cut off"):
        file.read(40, 60)
    with pytest.raises(OSError, match="changed or cut off"):
        file.reader().read()


def test_a_file_that_is_replaced_is_read_as_it_was(tmp_path):
    path, other = tmp_path / "x", tmp_path / "y"
    path.write_bytes(b"old")
    other.write_bytes(b"new")
    file = OpenFile(path)
    other.replace(path)
    assert file.read() == b"old" and list(file.pieces()) == [b"old"]
    with pytest.raises(OSError, match="changed"):
        pickle.loads(pickle.dumps(file))  # another process would open the new one


def test_a_file_that_is_written_to_is_noticed(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    file = OpenFile(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(OSError, match="changed"):
        list(file.pieces())


def test_only_ordinary_files_up_to_a_size_are_read(tmp_path):
    (tmp_path / "large").write_bytes(bytes(11))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("large")
    assert read_bytes(tmp_path / "link", 11) == read_stream(tmp_path / "link", 11) == bytes(11)
    for read in (read_bytes, read_stream):
        with pytest.raises(OSError, match="expected at most"):
            read(tmp_path / "large", 10)
        for name in (".", "/dev/zero"):
            with pytest.raises(OSError, match="not an ordinary file"):
                read(tmp_path / name, 10)
    with pytest.raises(OSError, match="not an ordinary file"):
        read_bytes(tmp_path / "pipe", 10)


def test_nesting_is_limited():
    assert parse_json(b"[" * JSON_DEPTH + b"]" * JSON_DEPTH)
    for depth in (JSON_DEPTH + 1, 10**6):
        with pytest.raises(ValueError, match="nested more than"):
            parse_json(b"[" * depth + b"]" * depth)
    assert parse_json(json.dumps({"a": [1]}).encode()) == {"a": [1]}


def test_a_document_holds_a_limited_number_of_values(monkeypatch):
    monkeypatch.setattr("entropy_cli.core.reading.JSON_VALUES", 4)
    assert parse_json("[[], 1, 2]") == [[], 1, 2]
    for more in ("[[], 1, 2, 3]", "[[], 1, {}]"):
        with pytest.raises(ValueError, match="more than 4 values"):
            parse_json(more)
