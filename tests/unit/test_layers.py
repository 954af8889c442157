"""The rules of the house: imports point down, files and functions stay short, help needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import entropy_cli

ROOT = Path(entropy_cli.__file__).parent
LAYERS = [
    {"errors", "interrupts"},
    {"extras"},
    {"files", "functional"},
    {"tokenizers", "data"},
    {"engine"},
    {"results"},
    {"pipeline"},
    {"cli"},
]
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
FILES = sorted(ROOT.rglob("*.py"))
MOST_LINES, MOST_FUNCTION_LINES = 300, 50  # of a function without its docstring


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(dotted):
    parts = dotted.split(".")
    return parts[1] if parts[0] == "entropy_cli" and len(parts) > 1 else None


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_down(path):
    here = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for dotted in imports(path):
        there = room(dotted)
        if there in RANK and here in RANK and there != here:
            assert RANK[there] < RANK[here], f"{here} imports {dotted}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and "cli" not in path.parts:
            first = node.body[1] if ast.get_docstring(node) and node.body[1:] else node.body[0]
            assert node.end_lineno - first.lineno < MOST_FUNCTION_LINES, node.name


def test_only_the_command_line_touches_typer_and_tqdm():
    for path in FILES:
        if path.relative_to(ROOT).parts[0] != "cli":
            assert not {name.split(".")[0] for name in imports(path)} & {"typer", "tqdm"}, path


@pytest.mark.parametrize("argv", [["--help"], ["estimate", "--help"], ["--version"]])
def test_help_imports_no_torch(argv):
    code = (
        "import sys; from entropy_cli.cli.app import main; code = main(sys.argv[1:]);"
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
