"""The options of every command that runs over images, and what these commands do alike."""

import functools
import inspect
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from entropy_cli.input_options import Shard, check_not_among_images, files_read, parse_shard
from entropy_cli.options import (
    MAX_FAILED,
    MOST_BATCH,
    MOST_IMAGES,
    MOST_SECONDS,
    MOST_SEED,
    MOST_WORKERS,
    AsJson,
    Checkpoint,
    Data,
    Device,
    Explain,
    Family,
    ImageSize,
    MaxFailed,
    Output,
    Overwrite,
    PatchNums,
    Units,
    WholeTable,
    exit_code,
    number,
    parse_temperatures,
    suffix_parser,
    whole,
    whole_or_auto,
)
from entropy_cli.terminal import deliver as show
from entropy_cli.terminal import option, print_result, tqdm_bar, with_parameters

if TYPE_CHECKING:
    from entropy_cli.runs.config import EstimateConfig

PrecisionName = Literal["fp32", "tf32", "fp16", "bf16"]


@dataclass
class RunOptions:
    """The options of every run over images, in the order of the help, each with its default."""

    data: Data = None
    ckpt: Checkpoint = None
    split: Annotated[
        Literal["auto", "train", "val", "all"] | None,
        typer.Option(
            help="Part of the data to read: auto, the default, takes val/ if it is there, else train/, "
            "else all."
        ),
    ] = None
    limit: Annotated[
        int | None,
        whole(1, MOST_IMAGES, "Read only the first N images of the seeded order; default: all."),
    ] = None
    seed: Annotated[
        int,
        whole(
            0,
            MOST_SEED,
            "Seed of the order of the images, of the groups that intervals come from, and of drawn "
            "tokens.",
        ),
    ] = 0
    cluster: Annotated[
        Literal["image", "folder"],
        typer.Option(
            help="Unit of sampling of the intervals: image; or folder, where the folders are scenes or "
            "a sample of classes, and the intervals are to hold for others."
        ),
    ] = "image"
    family: Family = "auto"
    patch_nums: PatchNums = None
    image_size: ImageSize = None
    temperature: Annotated[
        Any,  # a tuple of numbers, "auto" or None
        typer.Option(
            metavar="T[,T...]",
            parser=parse_temperatures,
            help="Divisors of the squared distance or dot product: numbers, or auto to fit one to each "
            "scale. The first is the headline. Default: the published one, else 1,auto.",
        ),
    ] = None
    temperature_from: Annotated[
        Path | None,
        typer.Option(metavar="RESULT.json", help="Use the temperatures of another run as they are."),
    ] = None
    device: Device = "auto"
    compile: Annotated[
        Literal["auto", "on", "off"] | None,
        typer.Option(
            rich_help_panel="Compute",
            help="Compile the encoder, which takes about a minute; auto, the default: on a GPU, for "
            "half a million images or more. Moves the result by rounding only.",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        whole_or_auto(1, MOST_BATCH, "Images per batch; moves the result by rounding only."),
    ] = None
    workers: Annotated[
        int | None,
        whole_or_auto(0, MOST_WORKERS, "Processes that decode images; 0: decode in this one."),
    ] = None
    shard: Annotated[
        Shard | None,
        typer.Option(
            metavar="I/N|slurm",
            parser=parse_shard,
            help="Read only part I of N, counted from 0, for `merge`; slurm takes both from the job "
            "array. Default: all of it.",
        ),
    ] = None
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File to save what is accumulated in, and to resume from; default: one in the "
            "cache folder, until the run ends.",
        ),
    ] = None
    save_every: Annotated[
        float,
        number(0, MOST_SECONDS, "Time between saves of the state; 0: save after each batch.", "SECONDS"),
    ] = 60
    save_tokens: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npy",
            parser=suffix_parser(".npy"),
            help="Write the tokens, a row for each image that was read, scale after scale, and the "
            "images' paths to a file beside it.",
        ),
    ] = None
    ladder: Annotated[
        bool,
        typer.Option(
            "--ladder", help="Also bound the loss of the hard tokens from above; see `guide ladder`."
        ),
    ] = False
    output: Output = None
    overwrite: Overwrite = False
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a report: .html, .png, .svg, .pdf, .md or .csv."),
    ] = None
    on_error: Annotated[
        Literal["skip", "fail"],
        typer.Option(help="Skip images that can't be read and list them, or fail at the first."),
    ] = "skip"
    max_failed: MaxFailed = MAX_FAILED
    as_json: AsJson = False
    table: WholeTable = False
    explain: Explain = False
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would be read, how, and how long it would take."),
    ] = False
    units: Units = "nats"


# Options that not every run has, by the one that they precede in the help.
BEFORE = {
    "split": ("model", "labels", "label_check", "tokens", "result"),
    "temperature": ("latents", "channels", "codebook", "levels", "weights", "heads", "rule"),
    "device": ("path",),
    "compile": ("precision",),
    "on_error": ("target_ci",),
    "output": ("per_image",),
}


def with_run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that also takes RunOptions, whose values it finds in its context."""
    own = dict(inspect.signature(command).parameters)

    @functools.wraps(command)
    def run(**given: Any) -> Any:  # noqa: ANN401
        return command(**{name: given[name] for name in own})

    placed = {name for names in BEFORE.values() for name in names}
    parameters = [parameter for name, parameter in own.items() if name not in placed]
    for one in fields(RunOptions):
        parameters += [own[name] for name in BEFORE.get(one.name, ()) if name in own]
        parameters.append(option(one.name, one.type, default=one.default))
    return with_parameters(run, parameters)


def check_run_files(
    params: dict[str, Any],
    written: Iterable[tuple[str, Path | None]] = (),
    *,
    read: Iterable[tuple[str, Path]] = (),
) -> None:
    """Check, before any work, that no file that a run writes is one that it reads or one to keep.

    Args:
        params: values of the command's options by name.
        written: options with files that the command writes beside those that every run may.
        read: options with files that it reads beside those that every run may.

    Raises:
        ResultError: a file can't be written, or must not be.
    """
    from entropy_cli.core.files import check_files
    from entropy_cli.results.page.report_file import check_report
    from entropy_cli.streaming.token_file import paths_file

    save_tokens, state, overwrite = params["save_tokens"], params["state"], params["overwrite"]
    lines = None if save_tokens is None else paths_file(save_tokens)
    results = [("--output", params["output"]), ("--report", params["report"]), *written]
    tokens = [("--save-tokens", save_tokens), ("--save-tokens", lines)]
    check_files([], [*results, *tokens, ("--state", state)], overwrite=True)  # a state is resumed
    inputs = [*files_read(params), *read]
    check_files(inputs, [("--state", state)], overwrite=True)
    check_files(inputs, results, overwrite=overwrite)
    # An array of tokens bears no mark but the paths beside it.
    is_own = lines is not None and lines.exists()
    check_files(inputs, tokens, overwrite=overwrite or is_own)
    check_not_among_images(params["data"], [*results, ("--state", state)])
    if params["report"] is not None:
        check_report(params["report"])


def common_config(context: typer.Context) -> dict[str, Any]:
    """Return the fields of a config that every run over images sets, from the options given."""
    params = context.params
    return {
        "data": params["data"],
        "checkpoint": params["ckpt"],
        "split": params["split"] or "auto",
        "seed": params["seed"],
        **{name: params[name] for name in ("limit", "cluster", "family", "precision", "device")},
        **{name: params[name] for name in ("batch_size", "workers", "shard", "state", "ladder")},
        "compile": params["compile"] or "auto",
        "target": params["target_ci"],
        "temperatures": params["temperature"],
        "temperature_from": params["temperature_from"],
        "tokens": params["save_tokens"],
        "save_every_s": params["save_every"],
        "fail_at_first": params["on_error"] == "fail",
        "command": shlex.join(["entropy-cli", *context.obj]),
    }


def run_and_show(context: typer.Context, config: "EstimateConfig") -> int:
    """Run a config, print and write its result, and return the exit code; or only describe the run.

    Args:
        context: of the command.
        config: of the run.
    """
    from entropy_cli.results.page.report_file import write_report
    from entropy_cli.results.text import render
    from entropy_cli.runs.dry_run import dry_run
    from entropy_cli.runs.estimate import estimate

    params = context.params
    if params["dry_run"]:
        print_result(dry_run(config, tqdm_bar))
        return 0
    output, report, delivered = params["output"], params["report"], False

    def deliver(result: Any) -> None:  # noqa: ANN401 - of the command
        nonlocal delivered
        delivered = True
        text = render(result, params["units"], table=params["table"], explain=params["explain"])
        writes: list[Callable[[], object]] = []
        if output is not None:
            writes.append(partial(result.write, output))
        if report is not None:
            writes.append(partial(write_report, report, [result], []))
        show(result.to_json() if params["as_json"] else text, *writes)

    images = estimate(config, tqdm_bar, deliver)
    for older in (output, report) if config.shard is not None and not delivered else ():
        if older is not None:
            older.unlink(missing_ok=True)  # an older run's result must not pass for this one's
    return exit_code(images.used, images.failed, params["max_failed"])
