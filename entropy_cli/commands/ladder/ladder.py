"""The ladder of tokens that were saved, laid out as their result says."""

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from entropy_cli import __version__
from entropy_cli.commands.ladder.model_loss import beside_ladder, read_model_loss
from entropy_cli.core.errors import CheckpointError, DatasetError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.entropy.ladder.contexts import Layout
from entropy_cli.entropy.ladder.ladder import Ladder
from entropy_cli.results.schema import Result, read_result
from entropy_cli.streaming.ladder import LadderOptions, TokenTable, build_ladder
from entropy_cli.streaming.token_file import paths_file
from entropy_cli.streaming.token_table import check_counts, check_names, open_rows, read_names
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.registry import find_family
from entropy_cli.tokenizers.settings import TokenizerSettings


class InputFiles(NamedTuple):
    """The files of one run, and its checkpoint, if the probe is to see sums of codes."""

    tokens: Path
    result: Path
    checkpoint: Path | None
    model: Path | None = None  # a result of `loss` on these tokens


def ladder(files: InputFiles, options: LadderOptions, command: str, bars: Bars) -> tuple[Ladder, Result]:
    """Return the ladder, and the result with the ladder in it.

    Raises:
        EntropyCliError: a file can't be read, tokens and result are of different runs, or there are too
            few images.
    """
    tokens = files.tokens
    result = read_result(files.result)
    layout = Layout.of(result.scales)
    rows, read = open_rows(tokens, sum(layout.tokens), result.tokenizer.vocab_size)
    names = read_names(tokens)
    if not rows == len(names) == result.data.images_used:
        raise DatasetError(
            f"{tokens}: has {rows} rows, {paths_file(tokens).name} {len(names)} paths, the result "
            f"{result.data.images_used} images. Give the three files of one run."
        )
    seed, cluster = result.settings.seed, result.settings.cluster
    check_names(names, seed, cluster, result.replicates["images"], f"{paths_file(tokens)}")
    count_SV = [scale.code_counts or [] for scale in result.scales]
    check_counts(read, rows, layout, count_SV, f"{tokens}", bars)
    is_training = result.data.split == "train"
    table = TokenTable(
        names,
        read,
        layout,
        result.tokenizer.vocab_size,
        seed=seed,
        training_images=result.data.images_found if is_training else None,
    )
    provenance = {
        "command": command,
        "tool_version": __version__,
        "created_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "tokens": str(tokens.resolve()),
        "result": str(files.result.resolve()),
        "checkpoint_sha256": result.tokenizer.checkpoint_sha256,
        "data_fingerprint": result.data.fingerprint,
    }
    tokenizer = None if files.checkpoint is None else _load(files.checkpoint, result, bars)
    model = None if files.model is None else read_model_loss(files.model, result)
    found = build_ladder(table, options, provenance, bars, tokenizer)
    if model is not None and files.model is not None:
        found = replace(found, model=beside_ladder(model, files.model, found))
    return found, replace(result, ladder=found)


def _load(checkpoint: Path, result: Result, bars: Bars) -> Tokenizer:
    """Load the tokenizer of a result; raise CheckpointError if it is another one."""
    recorded = result.tokenizer
    sides = [side for side in recorded.patch_nums if side is not None]
    settings = TokenizerSettings(
        image_size=result.settings.image_size,
        patch_nums=tuple(sides) if len(sides) == len(recorded.patch_nums) > 1 else None,
        weights=result.provenance.get("checkpoint_weights"),
    )
    found = find_family(checkpoint, recorded.family, settings)
    with bars("hashing checkpoint", found.checkpoint.size, "B") as bar:
        if found.checkpoint.sha256(bar.update) != recorded.checkpoint_sha256:
            raise CheckpointError(
                f"{checkpoint}: is not the checkpoint of the result. Give that run's, or leave --ckpt "
                "out: the probe then sees codes alone."
            )
    tokenizer = found.build()
    found.checkpoint.close()
    return tokenizer
