"""Arguments that could be taken for others: empty ones, of a variable that is unset."""

import pytest
import typer

from entropy_cli.cli import RENAMED_OPTIONS, app

COMMANDS = typer.main.get_command(app).commands
EMPTY = [
    (name, [] if parameter.param_type_name == "argument" else parameter.opts[:1])
    for name, command in COMMANDS.items()
    for parameter in command.params
    if not getattr(parameter, "is_flag", False) and (name, parameter.name) != ("slurm", "options")
]


@pytest.mark.parametrize("blank", ["", " \t"])
@pytest.mark.parametrize("command, option", EMPTY, ids=lambda part: "".join(part))
def test_empty_text_is_wrong_usage_of_every_option_and_argument(
    cli, tmp_path, monkeypatch, command, option, blank
):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(command, *option, blank)
    assert code == 2 and out == "" and not list(tmp_path.iterdir())
    assert len(err.splitlines()) == 1 and "is empty; is a variable unset?" in err
    assert all(name in err for name in option)


def test_of_the_options_for_estimate_slurm_names_the_empty_one(cli, tmp_path):
    options = ("--data", "", "--ckpt", "vae.pth")
    code, _, err = cli("slurm", "--array", 2, "--output", tmp_path / "s", "--", *options)
    assert code == 2 and "--data is empty" in err and not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "argv",
    [
        ["estimate", "--latents", ":z", "--codebook", "c.npy"],
        ["estimate", "--latents", "z.npz:", "--codebook", "c.npy"],
        ["estimate", "--latents", "z.npz:a,,b", "--codebook", "c.npy"],
        ["estimate", "--latents", "z.npz", "--codebook", ":"],
        ["loss", "--logits", ":z", "--labels", "y.npy"],
        ["loss", "--logits", "z.npy", "--labels", "y.npz: "],
    ],
)
def test_files_and_keys_with_an_empty_part(cli, argv):
    code, _, err = cli(*argv)
    assert code == 2 and "a part is empty" in err and len(err.splitlines()) == 1


def test_braces_with_an_empty_part_are_not_the_working_folder(cli, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for pattern in ("{a.tar,}", "{,a.tar}"):
        code, _, err = cli("estimate", "--data", pattern, "--ckpt", checkpoint)
        assert code == 3 and f"{pattern}: a part is empty" in err


RENAMED = [(command, old, new) for command, row in RENAMED_OPTIONS.items() for old, new in row.items()]


@pytest.mark.parametrize("form", ["{} 0.9", "{}=0.9", "{}", "--help {} 1"])
@pytest.mark.parametrize("command, old, new", RENAMED)
def test_an_old_name_of_an_option_is_wrong_usage_that_says_the_new_one(cli, command, old, new, form):
    code, out, err = cli(command, *form.format(old).split())
    assert (code, out, err) == (2, "", f"error: {old} is now called {new}.\n")


@pytest.mark.parametrize("command, old, new", RENAMED)
def test_an_old_name_is_known_to_its_own_command_only(cli, command, old, new):
    options = {name: [opt for p in c.params for opt in p.opts] for name, c in COMMANDS.items()}
    assert new.partition(",")[0] in options[command] and old not in options[command]
    for other in COMMANDS.keys() - {name for name, row in RENAMED_OPTIONS.items() if old in row}:
        code, out, err = cli(other, old)
        assert code == 2 and out == "" and "is now called" not in err


def test_bench_s_old_option_with_its_value(cli):
    assert "--against is now called --baseline" in cli("bench", "--against", "plain")[2]


@pytest.mark.parametrize("command", ["train", "demo", "slurm"])
def test_every_output_has_the_short_name(command):
    assert ["--output", "-o"] in [parameter.opts for parameter in COMMANDS[command].params]


def test_an_old_name_as_a_value_is_a_value(cli, tmp_path, monkeypatch):
    """Only where an option is expected: a folder may have such a name."""
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("train", "--data", tmp_path / "none", "-o", "--out")
    assert code == 3 and "none" in err and "is now called" not in err
