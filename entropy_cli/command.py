"""The class of all commands: help in groups, and no option without text."""

from typing import Any

import typer
from typer.core import TyperCommand

OTHER_COMMANDS = "options"  # slurm's argument: a command line whose own command looks at it

# The groups of a command's help, and the parameters of each; all others are in the first.
PANELS = {
    "Options": (),
    "Input": (
        *("data", "split", "limit", "seed", "cluster", "latents", "channels", "levels"),
        *("logits", "labels", "targets", "floor", "floor_mean", "floor_last"),
        *("tokens", "result", "model", "label_check", "heads"),
    ),
    "Tokenizer": (
        *("ckpt", "family", "patch_nums", "image_size", "weights", "rule", "temperature"),
        *("temperature_from", "path"),
    ),
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

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer vendors its types
        """Write the arguments and, in groups, the options."""
        groups: dict[str, list[tuple[str, str]]] = {panel: [] for panel in ("Arguments", *PANELS)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            panels = [panel for panel, names in PANELS.items() if parameter.name in names]
            own = getattr(parameter, "rich_help_panel", None)
            is_option = parameter.param_type_name == "option"
            if record is not None:
                groups[own or next(iter(panels), "Options") if is_option else "Arguments"].append(record)
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
