"""Every numeric option of every command has a range; a number beyond it is exit code 2 in one line."""

import typing

import pytest
import typer

from entropy_cli.cli import COMMANDS, app

ABSURD = ("1e400", "9" * 5000, "9" * 40, "-" + "9" * 20, "nan", "inf", "-inf", "x", "0x10", "")


def numeric(kind):
    """Whether an annotation holds a kind of number."""
    if kind in (int, float):
        return True
    if isinstance(kind, type) and issubclass(kind, tuple):
        return True
    return any(map(numeric, typing.get_args(kind)))


def options():
    """Every numeric option with its command; those of several numbers have annotations of tuples."""
    commands = typer.main.get_command(app).commands
    for name, command in commands.items():
        hints = typing.get_type_hints(COMMANDS[name])
        for parameter in command.params:
            kind = hints.get(parameter.name, str)
            if parameter.param_type_name == "option" and (numeric(kind) or kind is typing.Any):
                yield name, parameter.opts[0]


OPTIONS = list(options())


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_absurd_numbers_are_refused_with_the_range(cli, command, option):
    for value in ABSURD:
        code, out, err = cli(command, f"{option}={value}")
        assert (code, out) == (2, ""), value
        (line,) = err.splitlines()
        assert option in line
        assert "expected" in line or "is empty" in line


def test_the_walk_finds_the_options():
    assert len(OPTIONS) > 50
    assert {("estimate", "--levels"), ("train", "--lr"), ("loss", "--ignore-index")} <= set(OPTIONS)
