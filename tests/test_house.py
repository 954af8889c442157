"""The rules of the house: imports point down, files and functions stay short, help needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import entropy_cli

ROOT = Path(entropy_cli.__file__).parent
LINE = (
    ("core",),
    ("entropy",),
    ("images", "tokenizers"),
    ("generators",),
    ("streaming", "results"),
    ("runs",),
    ("api",),
    ("command", "options", "terminal"),
    ("input_options", "floor_options", "remote_options"),
    ("run_options",),
    ("commands",),
    ("integrations",),
    ("cli",),
)
RANK = {room: rank for rank, rooms in enumerate(LINE) for room in rooms}
MOST_LINES, MOST_FUNCTION_LINES = 300, 50  # of a function without its docstring
FILES = {path.relative_to(ROOT): ast.parse(path.read_text()) for path in ROOT.rglob("*.py")}


def imports(tree):
    """Every module, or name in a module, that is imported, in parts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "a relative import"
            yield from ([*node.module.split("."), alias.name] for alias in node.names)


def test_imports_point_down_and_commands_leave_each_other_alone():
    for path, tree in FILES.items():
        here = path.with_suffix("").parts
        for package, *there in imports(tree):
            if package != "entropy_cli" or here[0] not in RANK or there[0] not in RANK:
                continue
            if there[0] != here[0]:
                assert RANK[there[0]] < RANK[here[0]], f"{path} imports {there}"
            elif here[0] == "commands" and here[1] != "demo":
                assert there[1] == here[1], f"{path} imports {there}"


def test_generators_take_only_files_and_interfaces_from_tokenizers():
    allowed = {"checkpoints", "base", "precision", "settings", "limits", "unsupported"}
    for path, tree in FILES.items():
        if path.parts[0] == "generators":
            theirs = {name[2] for name in imports(tree) if name[:2] == ["entropy_cli", "tokenizers"]}
            assert theirs <= allowed, path


def test_only_the_command_line_touches_typer_and_tqdm():
    for path, tree in FILES.items():
        if not path.stem.endswith(("cli", "command", "options", "terminal")):
            assert not {name[0] for name in imports(tree)} & {"typer", "tqdm"}, path


def test_files_and_functions_stay_short():
    for path, tree in FILES.items():
        assert len((ROOT / path).read_text().splitlines()) <= MOST_LINES, path
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and not path.stem.endswith(("cli", "options")):
                first = node.body[1] if ast.get_docstring(node) and node.body[1:] else node.body[0]
                assert node.end_lineno - first.lineno < MOST_FUNCTION_LINES, (path, node.name)


@pytest.mark.parametrize(
    "argv", [["--help"], ["estimate", "--help"], ["--version"], ["guide"], ["guide", "number"]]
)
def test_help_imports_no_torch(argv):
    code = (
        "import sys; from entropy_cli.cli import main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_reading_a_result_imports_no_torch():
    code = (
        "import sys, entropy_cli.results.schema, entropy_cli.results.tables;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
