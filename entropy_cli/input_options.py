"""Check the input options of `estimate`: images and a checkpoint, or latents made elsewhere."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from entropy_cli.entropy.vocabulary import VECTOR_RULES
from entropy_cli.options import parse_file, parse_patch_nums

IMAGES = ("data", "ckpt")
ENCODER = ("split", "family", "patch_nums", "image_size", "weights", "precision")


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
    for name in ("codebook", "levels"):
        if name in given:
            raise _bad(name, "belongs to --latents, which is missing.")
    if params["rule"] not in (None, *VECTOR_RULES):
        raise _bad("rule", f"{params['rule']} is for --latents; a checkpoint of bits needs no --rule.")
    return None


AUTO = {("family", "auto")}  # a default that says nothing


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
    each = None if levels is None else parse_patch_nums(levels, "--levels")
    if each is not None and min(each) < 2:
        raise _bad("levels", f"{levels}: expected at least 2 levels each.")
    return {"latents": params["latents"], "codebook": codebook, "rule": rule, "levels": each}


def files_read(params: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """Yield the options that name inputs, with every file: shards, their index, config.json."""
    from entropy_cli.tokenizers.checkpoints.shards import locate

    for name in ("latents", "codebook"):
        if params[name] is not None:
            yield f"--{name}", parse_file(params[name], f"--{name}")
    if params["ckpt"] is not None:
        ckpt = Path(params["ckpt"])  # text in older versions of typer
        located = locate(ckpt)
        for path in (ckpt, *located.files, *sorted(located.folder.glob("*.json"))):
            yield "--ckpt", path


def _bad(name: str, words: str) -> typer.BadParameter:
    return typer.BadParameter(words, param_hint=f"--{name.replace('_', '-')}")
