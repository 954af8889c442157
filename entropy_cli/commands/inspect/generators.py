"""The generator in a checkpoint, in place of a tokenizer or beside one."""

from pathlib import Path

from entropy_cli.commands.inspect.result import Generator
from entropy_cli.core.errors import CheckpointError
from entropy_cli.generators.base import GeneratorSpec
from entropy_cli.generators.registry import GENERATOR, Found, looks_like_one, match_generator
from entropy_cli.generators.settings import GeneratorSettings
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint, open_checkpoint
from entropy_cli.tokenizers.settings import TokenizerSettings


def describe_generator(
    path: Path, settings: TokenizerSettings, heads: int | None, *, full: bool
) -> tuple[Checkpoint | None, Generator | None, TokenizerSettings | None, str | None]:
    """Look for a generator in a file and describe it; with `full`, build it.

    Returns:
        The checkpoint as that of a generator, None if it holds none; the description, and what it shows
        of its tokenizer, None if it is not supported or damaged; why `evaluate --model` would refuse it,
        None if nothing is known.
    """
    checkpoint = open_checkpoint(path, GENERATOR)
    if not looks_like_one(checkpoint):
        return None, None, None, None
    chosen = GeneratorSettings(settings.image_size, settings.patch_nums, heads, settings.weights)
    found = spec = problem = None
    try:
        found = match_generator(checkpoint, settings=chosen)
        spec = found.describe()
        found.check_complete(spec)
        if full:
            found.build()
    except CheckpointError as error:
        problem = str(error)
    if problem is not None and found is not None:
        problem = f"{path}: is {found.family.WORDS}: {problem.removeprefix(f'{path}: ')}"
    if found is None or spec is None:
        return checkpoint, None, None, problem
    return checkpoint, _described(found, spec), spec.of_tokenizer, problem


def _described(found: Found, spec: GeneratorSpec) -> Generator:
    names = (
        *("family", "image_size", "vocab_size", "latent_dim", "classes", "null_class", "parameters"),
        *("width", "depth", "heads", "trained_in", "attention", "rule", "tokens"),
    )
    return Generator(
        words=found.family.WORDS,
        why=found.evidence,
        wrapper=found.checkpoint.wrapper,
        patch_nums=list(spec.patch_nums),
        tokenizers=found.family.fitting_tokenizers(spec),
        notes=list(spec.notes),
        **{name: getattr(spec, name) for name in names},
    )
