"""README and help say what the program does."""

import re
from pathlib import Path

import pytest

from entropy_cli.cli.app import app

README = (Path(__file__).parents[2] / "README.md").read_text()
COMMANDS = {command.name: command.callback for command in app.registered_commands}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_are_in_the_readme_and_have_help_with_an_example(name):
    assert f"entropy-cli {name}" in README
    assert "Example: entropy-cli" in COMMANDS[name].__doc__


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_name_only_options_that_exist(cli, name):
    code, out, _ = cli(name, "--help")
    assert code == 0
    for line in README.splitlines():
        if line.strip().startswith(f"entropy-cli {name} "):
            for option in re.findall(r"(?<= )--[a-z-]+", line):
                assert option in out, option


def test_no_word_of_this_workplace():
    root = Path(__file__).parents[2]
    for path in [*root.glob("*.*"), *root.glob("Makefile"), *root.rglob("entropy_cli/**/*.py")]:
        text = path.read_text()
        assert not re.search(r"py[p]i\.org|python[h]osted|https?://[^ ]*simple", text), path
