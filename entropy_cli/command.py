"""The class of all commands: help in groups, and no option without text."""

import inspect
import re
from typing import Any

import typer
from typer.core import TyperCommand

from entropy_cli.core.wrapping import SPACE, wrap_command

HYPHEN = "\N{NON-BREAKING HYPHEN}"  # typer would break lines of help within options
EXAMPLE = "Example: "  # begins the last line of a command's help
OTHER_COMMANDS = "options"  # slurm's argument: a command line whose own command looks at it

# The groups of a command's help, and the parameters of each; all others are in Options.
PANELS = {
    "Input": (
        *("data", "split", "limit", "seed", "cluster", "latents", "channels", "levels"),
        *("logits", "labels", "targets", "floor", "floor_mean", "floor_last"),
        *("tokens", "result", "model", "label_check", "heads"),
    ),
    "Tokenizer": (
        *("ckpt", "family", "patch_nums", "image_size", "weights", "rule", "temperature"),
        *("temperature_from", "path"),
    ),
    "Options": (),
    "Compute": (
        "device",
        "precision",
        "compile",
        "batch_size",
        "workers",
        "shard",
        "state",
        "save_every",
    ),
    "Stopping": ("target_ci", "on_error", "max_failed"),
    "Output": (
        *("output", "result_output", "report", "overwrite", "save_tokens", "ladder", "save_fp16"),
        "per_image",
        *(
            "tensorboard",
            "wandb",
            "as_json",
            "table",
            "explain",
            "units",
            "dry_run",
            "quiet",
            "verbose",
            "help",
        ),
    ),
}


class Command(TyperCommand):
    """A command with grouped help that refuses empty text: as a path, it would be the working folder."""

    def get_help(self, ctx: Any) -> str:  # noqa: ANN401 - typer vendors its types
        """Return the help, with options and defaults unbroken."""
        return super().get_help(ctx).replace(HYPHEN, "-").replace(SPACE, " ")

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401 - typer vendors its types
        """Return what follows the command's name, without the braces of newer versions of typer."""
        pieces: list[str] = super().collect_usage_pieces(ctx)
        return [re.sub("[{}]", "", piece).replace("......", "...") for piece in pieces]

    def format_help_text(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer vendors its types
        """Write the text of the help, and the example as a command that can be pasted."""
        text, _, example = inspect.cleandoc(self.help or "").partition(EXAMPLE)
        with formatter.indentation():
            formatter.write_paragraph()
            formatter.write_text(_unbroken(text))
            formatter.write_paragraph()
            command = wrap_command(EXAMPLE + example, formatter.width - 2, indent=" " * 4)
            formatter.write("\n".join(f"  {line}" for line in command.splitlines()) + "\n")

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer vendors its types
        """Write the arguments and, in groups, the options."""
        groups: dict[str, list[tuple[str, str]]] = {panel: [] for panel in ("Arguments", *PANELS)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            panels = [panel for panel, names in PANELS.items() if parameter.name in names]
            own = getattr(parameter, "rich_help_panel", None)
            is_option = parameter.param_type_name == "option"
            if record is not None:
                name, text = record
                panel = own or next(iter(panels), "Options") if is_option else "Arguments"
                shown = name if is_option else name.partition(" <")[0]  # without Python's type
                groups[panel].append((shown, _unbroken(text)))
        for panel, records in groups.items():
            if records:
                with formatter.section(panel):
                    formatter.write_dl(records)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer vendors its type
        """Parse as typer does.

        Raises:
            BadParameter: an option or argument is empty or blank.
        """
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        parameters: list[Any] = self.get_params(ctx)
        for parameter in parameters:
            value = None if parameter.name == OTHER_COMMANDS else given.get(parameter.name)
            for text in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(text, str) and not text.strip():
                    words = "is empty; is a variable unset?"
                    raise typer.BadParameter(words, ctx=ctx, param=parameter)
        return super().parse_args(ctx, args)


def _unbroken(text: str) -> str:
    """Return a text whose hyphens and default end no line."""
    return text.replace("-", HYPHEN).replace("[default: ", f"[default:{SPACE}")
