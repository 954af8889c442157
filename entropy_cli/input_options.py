"""The input options of `estimate`: images and a checkpoint, or latents made elsewhere; shards."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from entropy_cli.entropy.vocabulary import MOST_LEVELS, VECTOR_RULES
from entropy_cli.options import BadValue, keyed_file, list_parser

IMAGES = ("data", "ckpt")
ENCODER = ("split", "cluster", "family", "patch_nums", "image_size", "weights", "precision", "compile")


# Options that are about images or the soft labels, of which a run on saved tokens has none.
NOT_OF_TOKENS = (
    *("data", "split", "limit", "seed", "cluster", "temperature", "temperature_from", "compile"),
    *("shard", "save_tokens", "ladder", "target_ci"),
)


def check_options(params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Check that estimate's options go together; return the arguments of GivenLatents, or None.

    Args:
        params: values of estimate's options by name.

    Raises:
        BadParameter: they don't.
    """
    _check_run(params)
    return given_latents(params)


def _check_run(params: Mapping[str, Any]) -> None:
    """Raise BadParameter for options of any run over images that don't go together."""
    if params["shard"] is not None and params["target_ci"] is not None:
        raise typer.BadParameter(
            "a shard can't know when all shards together are precise enough. Leave one of them out, or "
            "run on several processes with torchrun.",
            param_hint="--target-ci with --shard",
        )
    if params["temperature"] is not None and params["temperature_from"] is not None:
        raise typer.BadParameter("give one of them.", param_hint="--temperature / --temperature-from")


def check_evaluation(context: typer.Context) -> None:
    """Raise BadParameter for options of `evaluate` that are missing, or that don't go together."""
    params = context.params
    if params["model"] is None:
        raise typer.BadParameter("is missing: give the generator's checkpoint.", param_hint="--model")
    if (params["tokens"] is None) != (params["result"] is None):
        raise typer.BadParameter("give both, of one run.", param_hint="--tokens / --result")
    if (params["data"] is None) == (params["tokens"] is None):
        words = "give one of them: images, or tokens that estimate saved."
        raise typer.BadParameter(words, param_hint="--data / --tokens")
    if params["tokens"] is not None:
        for name in NOT_OF_TOKENS:
            source = context.get_parameter_source(name)
            if source is not None and source.name != "DEFAULT":
                words = "is of the run that saved the --tokens, or needs images. Leave it out."
                raise typer.BadParameter(words, param_hint="--" + name.replace("_", "-"))
    _check_run(params)


def given_latents(params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of GivenLatents, or None if images and a checkpoint are given.

    Args:
        params: values of estimate's options by name.

    Raises:
        BadParameter: both or neither are given, or options that don't go together.
    """
    given = {name for name, value in params.items() if value is not None and (name, value) not in AUTO}
    if "latents" in given:
        for name in (*IMAGES, *ENCODER):
            if name in given:
                raise _bad(name, "has no use for latents, which no encoder makes here. Leave it out.")
        return _latents(params)
    for name in IMAGES:
        if name not in given:
            raise _bad(name, "is missing: give --data and --ckpt, or --latents.")
    for name in ("codebook", "channels"):
        if name in given:
            raise _bad(name, "belongs to --latents, which is missing.")
    if params["rule"] not in (None, *VECTOR_RULES):
        raise _bad("rule", f"{params['rule']} is for --latents; a checkpoint of bits needs no --rule.")
    return None


AUTO = {("family", "auto"), ("cluster", "image")}  # defaults that say nothing


def _latents(params: Mapping[str, Any]) -> dict[str, Any]:
    codebook, levels = params["codebook"], params["levels"]
    rule = params["rule"] or ("l2" if codebook is not None else "levels" if levels is not None else None)
    if rule is None:
        raise _bad("latents", "need a --codebook, or a --rule without one: sign, bsq or levels.")
    for name, wanted, why in (
        ("codebook", rule in VECTOR_RULES, "compares latents with codes"),
        ("levels", rule == "levels", "needs the number of levels of each dimension"),
    ):
        if wanted and params[name] is None:
            raise _bad(name, f"is missing: the rule {rule} {why}.")
        if params[name] is not None and not wanted:
            raise _bad(name, f"has no use under the rule {rule}.")
    names = ("latents", "codebook", "levels", "channels")
    return {"rule": rule, **{name: params[name] for name in names}}


parse_levels = list_parser(2, MOST_LEVELS, 1024)


class Shard(tuple[int, int]):
    """The index of a shard, and the number of all."""


def parse_shard(text: str) -> Shard:
    """Parse I/N, or return the place of this task in a Slurm job array."""
    if text == "slurm":
        return _slurm_shard()
    match = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text, re.ASCII)
    if match and int(match[1]) < int(match[2]):
        return Shard((int(match[1]), int(match[2])))
    raise BadValue(f"{text}: expected I/N with 0 <= I < N, such as 0/8, or slurm.")


def _slurm_shard() -> Shard:
    names = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP", "COUNT")]
    given = [os.environ.get(name, "") for name in names]
    if not all(value.isdigit() for value in given):
        raise BadValue(
            "slurm: this is no task of a Slurm job array, whose SLURM_ARRAY_TASK_ID, _MIN, _MAX, _STEP "
            "and _COUNT are not all set. Give I/N.",
        )
    task, first, last, step, count = map(int, given)
    index, left_over = divmod(task - first, max(1, step))
    if left_over or (last - first) // max(1, step) + 1 != count or not 0 <= index < count:
        raise BadValue(
            f"slurm: task {task} of {count} from {first} to {last} in steps of {step} has no place in "
            "an even array. Use --array=0-N, or give I/N.",
        )
    return Shard((index, count))


def files_read(params: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """Yield the options that name inputs, with every file: shards, their index, config.json."""
    from entropy_cli.images.patterns import expand_pattern, is_archive_pattern
    from entropy_cli.tokenizers.checkpoints.config import FILE as CONFIG
    from entropy_cli.tokenizers.checkpoints.shards import INDEX, locate

    for name in ("latents", "codebook"):
        if params.get(name) is not None:
            yield f"--{name}", keyed_file(params[name])[0]
    if params.get("data") is not None and is_archive_pattern(data := Path(params["data"])):
        yield from (("--data", tar) for tar in expand_pattern(str(data)))
    if params.get("temperature_from") is not None:
        yield "--temperature-from", Path(params["temperature_from"])
    for name in ("ckpt", "model"):
        if params.get(name) is None:
            continue
        given = Path(params[name])  # text in older versions of typer
        located = locate(given)
        beside = [located.folder / CONFIG, *located.folder.glob(f"*{INDEX}")]
        for path in (given, *located.files, *sorted(path for path in beside if path.exists())):
            yield f"--{name}", path


def check_not_among_images(data: Path | None, written: Iterable[tuple[str, Path | None]]) -> None:
    """Check that no output would be one of the images, now or in the next run.

    Raises:
        ResultError: one would.
    """
    from entropy_cli.core.errors import ResultError
    from entropy_cli.images.folders import folder_around
    from entropy_cli.images.formats import is_archive, is_image

    for option, path in written:
        if data is None or path is None or not (is_image(path.name) or is_archive(path.name)):
            continue
        if folder := folder_around(Path(data), path):
            raise ResultError(
                f"{option} {path}: is in {folder}, whose images are read: it would be one of them. Give "
                "a place outside."
            )


def _bad(name: str, words: str) -> typer.BadParameter:
    return typer.BadParameter(words, param_hint=f"--{name.replace('_', '-')}")
