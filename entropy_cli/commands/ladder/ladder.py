"""The ladder of tokens that were saved, laid out as their result says."""

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from entropy_cli import __version__
from entropy_cli.core.errors import DatasetError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.entropy.ladder.contexts import Layout
from entropy_cli.entropy.ladder.ladder import Ladder
from entropy_cli.results.schema import Result, read_result
from entropy_cli.streaming.ladder import LadderOptions, TokenTable, build_ladder
from entropy_cli.streaming.token_file import paths_file
from entropy_cli.streaming.token_table import open_rows, read_names


def ladder(
    tokens: Path, result_file: Path, options: LadderOptions, command: str, bars: Bars
) -> tuple[Ladder, Result]:
    """Return the ladder, and the result with the ladder in it.

    Raises:
        EntropyCliError: a file can't be read, tokens and result are of different runs, or there are too
            few images.
    """
    result = read_result(result_file)
    layout = Layout(
        [scale.tokens for scale in result.scales], [scale.patch_num for scale in result.scales]
    )
    rows, read = open_rows(tokens, sum(layout.tokens), result.tokenizer.vocab_size)
    names = read_names(tokens)
    if not rows == len(names) == result.data.images_used:
        raise DatasetError(
            f"{tokens}: has {rows} rows, {paths_file(tokens).name} {len(names)} paths, the result "
            f"{result.data.images_used} images. Give the three files of one run."
        )
    is_training = result.data.split == "train"
    table = TokenTable(
        names,
        read,
        layout,
        result.tokenizer.vocab_size,
        depths=all(scale.name.startswith("depth") for scale in result.scales),
        seed=result.settings.seed,
        training_images=result.data.images_found if is_training else None,
    )
    provenance = {
        "command": command,
        "tool_version": __version__,
        "created_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "tokens": str(tokens.resolve()),
        "result": str(result_file.resolve()),
        "checkpoint_sha256": result.tokenizer.checkpoint_sha256,
        "data_fingerprint": result.data.fingerprint,
    }
    found = build_ladder(table, options, provenance, bars)
    return found, replace(result, ladder=found)
