"""What `estimate` is given: images and a checkpoint, or latents made elsewhere."""

from pathlib import Path
from typing import Any

import typer

from entropy_cli.cli.options import parse_patch_nums

VECTOR_RULES = ("l2", "cosine", "dot")  # that compare latents with codes in a table


def given_latents(
    latents: str | None, codebook: str | None, levels: str | None, rule: str | None
) -> dict[str, Any] | None:
    """Arguments of GivenLatents, or None if there are none.

    Raises:
        BadParameter: options that don't go together.
    """
    if latents is None:
        for option, value in (("--codebook", codebook), ("--levels", levels)):
            if value is not None:
                raise typer.BadParameter("belongs to --latents, which is missing.", param_hint=option)
        if rule not in (None, *VECTOR_RULES):
            raise typer.BadParameter(
                f"{rule} is for --latents; a checkpoint of bits is assigned so by itself.",
                param_hint="--rule",
            )
        return None
    rule = rule or ("l2" if codebook is not None else "levels" if levels is not None else None)
    if rule is None:
        raise typer.BadParameter(
            "latents need a --codebook, or a --rule without one: sign, bsq or levels.",
            param_hint="--latents",
        )
    for option, value, wanted, why in (
        ("--codebook", codebook, rule in VECTOR_RULES, "compares latents with codes"),
        ("--levels", levels, rule == "levels", "needs how many levels each dimension has"),
    ):
        if wanted and value is None:
            raise typer.BadParameter(f"is missing: the rule {rule} {why}.", param_hint=option)
        if value is not None and not wanted:
            raise typer.BadParameter(f"has no use under the rule {rule}.", param_hint=option)
    each = None if levels is None else parse_patch_nums(levels, "--levels")
    if each is not None and min(each) < 2:
        raise typer.BadParameter(f"{levels}: expected at least 2 levels each.", param_hint="--levels")
    return {"latents": latents, "codebook": codebook, "rule": rule, "levels": each}


def given_files(*texts: str | None) -> list[tuple[str, Path]]:
    """Option and file of --latents and --codebook, as far as they are given."""
    from entropy_cli.tokenizers.arrays import split_keys

    options = ("--latents", "--codebook")
    return [(o, split_keys(text)[0]) for o, text in zip(options, texts, strict=True) if text is not None]


def check_given(*, latents: bool, data: Path | None, ckpt: Path | None, encoder: dict[str, Any]) -> None:
    """That there is exactly one kind of input.

    Args:
        latents: whether they are given.
        data: images.
        ckpt: a checkpoint.
        encoder: options that only an encoder has use for, None where not given.

    Raises:
        BadParameter: naming the option that is missing or too much.
    """
    needed = {"--data": data, "--ckpt": ckpt}
    for option, value in needed.items():
        if not latents and value is None:
            raise typer.BadParameter(
                "is missing: give --data and --ckpt, or --latents.", param_hint=option
            )
    for option, value in (needed | encoder).items():
        if latents and value is not None:
            raise typer.BadParameter(
                "has no use for latents, which no encoder makes. Leave it out.", param_hint=option
            )
