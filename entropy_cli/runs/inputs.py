"""Open what a run reads: images and a checkpoint, or latents and a codebook."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from entropy_cli.core.errors import CheckpointError, DatasetError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.core.reading import OpenFile
from entropy_cli.core.remote.address import provenance_of
from entropy_cli.entropy.ladder.contexts import Layout
from entropy_cli.generators.base import GeneratorSpec
from entropy_cli.images.decode import CroppedImages
from entropy_cli.images.image_set import ImageSet, find_images
from entropy_cli.images.latents import LatentSet, ScaleLatents, find_latents
from entropy_cli.images.loader import Source
from entropy_cli.results.schema import Result, read_result
from entropy_cli.runs.config import EstimateConfig, GivenLatents, SavedTokens
from entropy_cli.runs.frozen import freeze
from entropy_cli.streaming.given_tokens import GivenTokens, TokenSet
from entropy_cli.streaming.run_settings import FROZEN, TOKENS
from entropy_cli.streaming.token_table import check_counts, check_names, open_rows, read_names
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.checkpoints.arrays import Arrays, open_arrays
from entropy_cli.tokenizers.checkpoints.contents import hash_files
from entropy_cli.tokenizers.checkpoints.states import some
from entropy_cli.tokenizers.codebook_notes import codebook_notes
from entropy_cli.tokenizers.latents import LatentsTokenizer, codes_of_scales, describe_latents
from entropy_cli.tokenizers.registry import Loaded, load_tokenizer

logger = logging.getLogger(__name__)

SUMS = "embed_avg"  # sums of vectors that quantisers trained by moving averages keep beside their codes


@dataclass(frozen=True)
class Inputs:
    """A tokenizer and the images, or latents of images, that it is applied to.

    Attributes:
        images: in their seeded order.
        source: reads them.
        identity: what of the tokenizer changes the number and is not in its spec.
        provenance: where checkpoint and images are, for the record.
        given_result: of the run that saved the tokens, if tokens are given.
    """

    tokenizer: Tokenizer
    images: ImageSet | LatentSet | TokenSet
    source: Source
    identity: dict[str, Any]
    provenance: dict[str, Any]
    given_result: Result | None = None


def open_inputs(config: EstimateConfig, model: GeneratorSpec | None, bars: Bars) -> Inputs:
    """Open what the config names; `model` is the generator that is evaluated on the tokens.

    Raises:
        EntropyCliError: any of it can't be used.
    """
    if config.latents:
        return _latents(config, config.latents, bars)
    loaded, identity, provenance = _tokenizer(config, model, bars)
    if config.model is not None and config.model.given is not None:
        return _tokens(config.model.given, loaded.tokenizer, identity, provenance, bars)
    assert config.data is not None
    with bars("listing images", None, "img") as bar:
        images = find_images(
            config.data,
            config.split,
            seed=config.seed,
            limit=config.limit,
            cluster=config.cluster,
            progress=bar.update,
            bars=bars,
        )
    provenance = {**provenance_of("data", config.data), **provenance, "data": images.location}
    source = CroppedImages(images, loaded.tokenizer.spec.crop.apply)
    return Inputs(loaded.tokenizer, images, source, identity, provenance)


def _tokenizer(
    config: EstimateConfig, model: GeneratorSpec | None, bars: Bars
) -> tuple[Loaded, dict[str, Any], dict[str, Any]]:
    """Load the tokenizer; return it with its identity and provenance."""
    path, defaults = config.checkpoint, None if model is None else model.of_tokenizer
    if path is None:  # a training of VAR's holds it beside the generator
        assert config.model is not None
        path = config.model.checkpoint
    try:
        loaded = load_tokenizer(path, config.family, config.tokenizer, defaults)
    except CheckpointError as error:
        if config.checkpoint is None:
            words = "--ckpt is missing, and the model's file has none to use"
            raise CheckpointError(f"{words}: {error}") from error
        if defaults is None or config.tokenizer.patch_nums or "patch_nums" not in str(error):
            raise
        words = "These are the scales of the --model: give the tokenizer that it was trained on."
        raise CheckpointError(f"{error} {words}") from error
    checkpoint = loaded.checkpoint
    if checkpoint.classes:
        logger.info(
            "%s: of what its pickle names, %d classes stayed names: %s",
            checkpoint.path,
            len(checkpoint.classes),
            ", ".join(checkpoint.classes[:4]) + (", ..." if len(checkpoint.classes) > 4 else ""),
        )
    with bars("hashing checkpoint", checkpoint.size, "B") as bar:
        sha256 = checkpoint.sha256(bar.update)
    return loaded, *identify(loaded, sha256)


def _tokens(
    given: SavedTokens,
    tokenizer: Tokenizer,
    identity: dict[str, Any],
    provenance: dict[str, Any],
    bars: Bars,
) -> Inputs:
    """Open tokens that a run saved; raise EntropyCliError unless they are of its result."""
    result = read_result(given.result)
    frozen = freeze(given.result, tokenizer.spec, identity["checkpoint_sha256"], "--result")
    spec, where = tokenizer.spec, str(given.tokens)
    if result.settings.path == "drawn":
        raise DatasetError(
            f"{where}: got tokens that were drawn (--path drawn), expected the nearest codes, which the "
            "model was trained on. Save them again without --path drawn."
        )
    layout = Layout.of(spec.scales)
    columns = sum(scale.tokens for scale in spec.scales)
    names = read_names(given.tokens)
    rows, read = open_rows(given.tokens, columns, spec.vocab_size)
    if rows != len(names) or rows != result.data.images_used:
        raise DatasetError(
            f"{where}: got {rows:,} rows and {len(names):,} paths, expected "
            f"{result.data.images_used:,} as in {given.result}. Give the files of one run."
        )
    seed, cluster = result.settings.seed, result.settings.cluster
    check_names(names, seed, cluster, result.replicates["images"], where)
    counts = [scale.code_counts or [] for scale in result.scales]
    check_counts(read, rows, layout, counts, where, bars)
    images = TokenSet(where, names, read, result.data.split, result.data.images_found, seed, cluster)
    digest = hash_files([OpenFile(given.tokens)], lambda _: None)
    identity = {**identity, FROZEN: frozen.values_TS, TOKENS: digest}
    provenance = {**provenance, "data": where, "result": str(given.result.resolve())}
    return Inputs(GivenTokens(tokenizer), images, images, identity, provenance, result)


def identify(loaded: Loaded, sha256: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what of a checkpoint, beside the spec, changes the number; and its provenance."""
    checkpoint = loaded.checkpoint
    identity: dict[str, Any] = {
        "checkpoint_sha256": sha256,
        "checkpoint_weights": checkpoint.weights,
        "norm_groups": loaded.settings.norm_groups,
    }
    if loaded.settings.quant_resi is not None:  # or left out, as in states of earlier versions
        identity["quant_resi"] = loaded.settings.quant_resi
    if loaded.settings.levels is not None:
        identity["levels"] = list(loaded.settings.levels)
    provenance = {
        **provenance_of("checkpoint", checkpoint.path),
        "checkpoint_wrapper": checkpoint.wrapper,
        "checkpoint_prefix": checkpoint.prefix,
        "checkpoint_weights": checkpoint.weights,
        "checkpoint_copies": checkpoint.copies,
        "checkpoint_classes": list(checkpoint.classes),
        "checkpoint_evidence": loaded.evidence,
        "checkpoint_scales": loaded.tokenizer.spec.counted_scales,
        "checkpoint_notes": list(loaded.tokenizer.spec.notes),
        "codebook_notes": codebook_notes(loaded.tokenizer),
    }
    return identity, provenance


def _latents(config: EstimateConfig, given: GivenLatents, bars: Bars) -> Inputs:
    arrays = open_arrays(given.latents)
    tables = None if given.codebook is None else open_arrays(given.codebook)
    codes = [None] * len(arrays.tensors) if tables is None else _codes(tables, arrays)
    read, described = [], []
    for (name, array), table_VC in zip(arrays.tensors.items(), codes, strict=True):
        first, scale = describe_latents(
            name, array.shape, given.rule, table_VC, given.levels, given.channels
        )
        described.append(scale if len(arrays.tensors) > 1 else replace(scale, name=scale.grid))
        read.append(ScaleLatents(name, array, first))
    with bars("listing latents", None, "img") as bar:
        images = find_latents(
            str(arrays.path), read, seed=config.seed, limit=config.limit, progress=bar.update
        )
    sha256 = None
    if tables is not None:
        with bars("hashing codebook", tables.file.size, "B") as bar:
            sha256 = hash_files([tables.file], bar.update)
    crop = "none: given latents" + (f" {', '.join(arrays.tensors)}" if len(arrays.tensors) > 1 else "")
    tokenizer = LatentsTokenizer(described, given.rule, crop)
    return Inputs(
        tokenizer,
        images,
        images,
        {"checkpoint_sha256": sha256, "codebooks": list(tables.tensors) if tables else given.levels},
        {
            "data": str(arrays.path.resolve()),
            "checkpoint": str(tables.path.resolve()) if tables else None,
            "checkpoint_notes": [],
            "codebook_notes": codebook_notes(tokenizer),
        },
    )


def _codes(tables: Arrays, latents: Arrays) -> Sequence[Tensor]:
    """Return the codes of each scale."""
    scales, arrays = len(latents.tensors), list(tables.tensors.values())
    tables_of = [array.shape[0] if len(array.shape) == 3 else 1 for array in arrays]
    if tables_of in ([1], [scales], [1] * scales):  # or nothing is read
        codes = codes_of_scales([array.read() for array in arrays], scales)
        if codes is not None:
            return codes
    channels = {n for array in latents.tensors.values() for n in (*array.shape[1:2], *array.shape[-1:])}
    likely = [
        f"{tables.path}:{name} {codes.shape}"
        for name, codes in tables.tensors.items()
        if len(codes.shape) in (2, 3) and codes.shape[-1] in channels and not name.endswith(SUMS)
    ]
    shapes = some([f"{name} {codes.shape}" for name, codes in tables.tensors.items()])
    meant = f" These could be meant: {some(likely)}." if likely and len(tables.tensors) > 1 else ""
    raise CheckpointError(
        f"{tables.path}: got {shapes} for {scales} scale{'s' * (scales > 1)} of latents, expected one "
        "codebook (V, C) for all, or one for each: several, or one (Q, V, C) for Q scales. Choose with "
        f"FILE:KEY[,KEY...].{meant}"
    )
