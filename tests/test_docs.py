"""README and help say what the program does."""

import re
from pathlib import Path

import pytest

from entropy_cli.cli import app

README = (Path(__file__).parents[1] / "README.md").read_text()
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


def test_the_output_shown_is_what_the_program_prints_today(cli, images, checkpoint):
    """Every line of the table's frame and every label; the numbers are the demo's."""
    _, out, _ = cli(
        *("estimate", "--data", images, "--ckpt", checkpoint, "--workers", 0, "--temperature", "auto")
    )
    shown = " ".join(README.split())
    for line in out.splitlines():
        if re.match("scale, T|scale +tokens|Soft assignment|Hard tokens|[12]\\. ", line):
            assert " ".join(line.split()) in shown, line
    for label in re.findall(r"^[a-z-]+ ?[a-z]*(?=  )", out[out.index("\nimages  ") :], re.MULTILINE):
        assert re.search(rf"^{label}  ", README, re.MULTILINE), label


def test_the_report_shown_has_the_labels_of_today(cli, checkpoint):
    _, out, _ = cli("inspect", checkpoint)
    for label in re.findall(r"^[A-Za-z-]+(?:,? [a-zA-Z-]+)*(?=  )", out, re.MULTILINE):
        assert re.search(rf"^{label}  ", README, re.MULTILINE), label
    for title in re.findall(r"^[A-Z]\S+(?: quantize\S+)?$", out, re.MULTILINE):
        assert f"\n{title}\n" in README, title
