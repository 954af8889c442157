"""The rows of an inspection that describe a generator. Imports no torch."""

from collections.abc import Sequence

from entropy_cli.commands.inspect.result import Generator


def generator_rows(generator: Generator, beside: Sequence[str]) -> dict[str, str]:
    """Return the terms and texts that describe a generator by itself, and what lies beside it."""
    null = ", and one for no class" if generator.null_class is not None else ", none for no class"
    heads = f"{generator.heads} head" + ("" if generator.heads == 1 else "s")
    sizes = f"{generator.depth} blocks of width {generator.width}, {heads}"
    return {
        "is": generator.words,
        "predicts": _predicts(generator),
        "labels": f"{generator.classes:,} classes{null}",
        "network": f"{sizes}; {generator.parameters:,} parameters, trained in {generator.trained_in}",
        "attention": generator.attention,
        "tokenizer": f"has to be {generator.tokenizers}",
        "rule": f"of its tokenizer: {generator.rule}, by config.json" if generator.rule else "",
        "beside it": "; ".join(beside),
        "notes": "; ".join(generator.notes),
    }


def in_one_line(generator: Generator) -> str:
    """Describe a generator that lies beside a tokenizer."""
    where = f" under {generator.wrapper}" if generator.wrapper else ""
    return f"{generator.family}{where}: {_predicts(generator)}; {generator.parameters:,} parameters"


def _predicts(generator: Generator) -> str:
    codes = f"each one of {generator.vocab_size:,} codes"
    if not generator.patch_nums:
        return f"tokens of a number that nothing in it shows, {codes}"
    sides = ",".join(map(str, generator.patch_nums))
    size = f" of {generator.image_size} pixels" if generator.image_size else ""
    of = f"grids of side {sides}" if generator.patch_nums[1:] else f"a grid of side {sides}"
    return f"{generator.tokens:,} tokens per image{size}, on {of}, {codes}"
