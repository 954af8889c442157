"""Build the result of a run from its sums."""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from torch import Tensor

from entropy_cli import __version__
from entropy_cli.core.errors import DatasetError
from entropy_cli.entropy.point_estimates import BOUND, share_covered
from entropy_cli.entropy.pooled import pool
from entropy_cli.entropy.quantity import (
    AVERAGES,
    Averages,
    Bracket,
    Cluster,
    Estimate,
    TemperatureChoice,
    perplexity,
)
from entropy_cli.entropy.summary import Summary, standard_errors_over_images, summarise
from entropy_cli.entropy.tally import Tally
from entropy_cli.entropy.temperature import matching_temperature
from entropy_cli.results import schema
from entropy_cli.results.checks import find_checks
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.run_settings import RunSettings
from entropy_cli.streaming.state import RunMetadata, RunState

MOST_CODES_COUNTED = 65_536  # above, code_counts would make the file unwieldy


def build_result(
    state: RunState, *, target_reached: bool | None, provenance: dict[str, Any]
) -> schema.Result:
    """Estimate everything from what a run accumulated.

    Args:
        state: of a run that has read at least one image.
        target_reached: whether the estimate became as narrow as its target; None without one.
        provenance: the command, the machine and its speed.

    Raises:
        DatasetError: not one image could be read.
    """
    progress, settings, metadata = state.progress, state.settings, state.metadata
    _check_some_read(state)
    progress = replace(progress, failed=sorted(progress.failed))  # in whatever order they were found
    assert progress.tally is not None and progress.temperatures is not None
    tally = progress.tally.to("cpu")
    temperatures = settings.temperature
    summaries = [
        summarise(tally, metadata.vocabularies, t, settings.cluster, stopped_early=bool(target_reached))
        for t in range(len(temperatures))
    ]
    headline = summaries[0]
    result = schema.Result(
        schema=schema.SCHEMA,
        schema_version=schema.SCHEMA_VERSION,
        tool_version=__version__,
        created_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        units="nats per token",
        tokenizer=_tokenizer(metadata, settings),
        data=_data(metadata, progress, settings),
        settings=_settings(metadata, progress, settings),
        scales=[
            _scale(metadata, s, progress.temperatures[s][0], headline, tally, settings.cluster)
            for s in range(len(metadata.scales))
        ],
        average=Averages(
            *(
                schema.Estimates(**_all(headline.averages[kind], headline.brackets[kind]))
                for kind in AVERAGES
            )
        ),
        temperatures=[
            _temperature(temperatures[t], summary, [values[t] for values in progress.temperatures])
            for t, summary in enumerate(summaries)
        ],
        history=progress.history,
        replicates={
            "images": tally.images_G.tolist(),
            **{name: without_nan(deleted_GS) for name, deleted_GS in headline.replicates.items()},
        },
        checks=[],
        pooled=_pool(metadata, tally, headline, settings.cluster),
        precision_check=progress.precision_check,
        target_reached=target_reached,
        provenance={
            **metadata.provenance,
            **_derived(replace(state, progress=progress), tally),
            **provenance,
        },
    )
    return replace(result, checks=find_checks(result))


def _pool(
    metadata: RunMetadata, tally: Tally, headline: Summary, cluster: Cluster
) -> schema.Pooled | None:
    """Estimate from the tokens of all scales together, if they share one codebook that is counted."""
    vocabulary = metadata.vocabularies[0]
    if not (metadata.shared_codebook and vocabulary.counted):
        return None
    if len(headline.scales) == 1:  # its own estimates, whose corrections know more
        unigram = headline.scales[0]["unigram_entropy"]
        return schema.Pooled(unigram, perplexity(unigram), headline.scales[0]["usage"])
    return schema.Pooled(*pool(tally, vocabulary.size, cluster))


def _check_some_read(state: RunState) -> None:
    if not state.progress.images:
        path, reason = state.progress.failed[0]
        option = "--data" if state.settings.image_size else "--latents"
        raise DatasetError(
            f"{state.metadata.provenance['data']}: none of the {len(state.progress.failed)} images "
            f"could be read; the first, {path}: {reason}. Check {option}."
        )


def _temperature_source(metadata: RunMetadata, progress: Progress, settings: RunSettings) -> str:
    source = metadata.provenance.get("temperature_from")
    given = "given with --temperature" if metadata.temperature_asked else metadata.temperature_default
    parts = [f"frozen from {source}"] if source else [] if metadata.temperature_asked else [given]
    if progress.pilot is not None:
        law = " (von Mises-Fisher)" if settings.rule == "cosine" else ""
        images = progress.pilot["images"]
        parts.insert(0, f"auto: maximum likelihood{law} at each scale on the first {images} images")
    return "; ".join(parts or [given])


def _derived(state: RunState, tally: Tally) -> dict[str, Any]:
    """Return what else the sums say: failures, and temperatures over all images."""
    metadata, progress, settings = state.metadata, state.progress, state.settings
    tokens_S = progress.images * tally.tokens_S
    fitted = settings.temperature.index("auto") if "auto" in settings.temperature else 0
    nearest_S = tally.min_distance_GS.sum(0) / tokens_S
    distance_S = tally.distance_GST[..., fitted].sum(0) / tokens_S
    fits = progress.pilot is not None
    return {
        "repeats": progress.repeats,
        "failed_reasons": [reason for _, reason in progress.failed],
        "temperature_fit": progress.pilot,
        "assignment_entropy_se_over_images": standard_errors_over_images(tally),
        "temperature_if_hard": _matching(nearest_S, metadata, settings),
        "temperature_implied": _matching(distance_S, metadata, settings) if fits else None,
    }


def _matching(distance_S: Tensor, metadata: RunMetadata, settings: RunSettings) -> list[float] | None:
    """Return the temperature that belongs to each mean distance; None where there is none."""
    dims = [dim for dim in metadata.distance_dims if dim is not None]
    if len(dims) < len(distance_S):
        return None
    parts = zip(distance_S.tolist(), dims, strict=True)
    value_S = [matching_temperature(distance, dim, settings.rule) for distance, dim in parts]
    return value_S if all(map(math.isfinite, value_S)) else None


def _settings(metadata: RunMetadata, progress: Progress, settings: RunSettings) -> schema.SettingsInfo:
    return schema.SettingsInfo(
        temperature=settings.temperature[0],
        temperature_source=_temperature_source(metadata, progress, settings),
        image_size=settings.image_size,
        preprocess=settings.preprocess,
        precision=settings.precision,
        seed=settings.seed,
        groups=settings.groups,
        path=settings.path,
        cluster=settings.cluster,
    )


def _tokenizer(metadata: RunMetadata, settings: RunSettings) -> schema.TokenizerInfo:
    return schema.TokenizerInfo(
        family=settings.family,
        vocab_size=max(vocabulary.size for vocabulary in metadata.vocabularies),
        latent_dim=metadata.latent_dim,
        patch_nums=[scale.patch_num for scale in metadata.scales],
        rule=settings.rule,
        checkpoint_sha256=settings.checkpoint_sha256,
        labels=metadata.labels,
    )


def _data(metadata: RunMetadata, progress: Progress, settings: RunSettings) -> schema.DataInfo:
    return schema.DataInfo(
        split=metadata.split,
        images_found=metadata.images_found,
        images_used=progress.images,
        images_failed=len(progress.failed),
        failed=[path for path, _ in progress.failed],
        fingerprint=settings.fingerprint(),
        images_fingerprint=settings.images_fingerprint,
    )


def _scale(
    metadata: RunMetadata,
    s: int,
    temperature: float,
    summary: Summary,
    tally: Tally,
    cluster: Cluster,
) -> schema.ScaleResult:
    scale = metadata.scales[s]
    vocabulary = scale.vocabulary
    counted, entries = vocabulary.counted, slice(vocabulary.entries)
    count_V = tally.counts_GSE[:, s, entries].sum(0)
    return schema.ScaleResult(
        scale=s,
        name=scale.name,
        patch_num=scale.patch_num,
        tokens=scale.tokens,
        temperature=temperature,
        codes_used=int((count_V > 0).sum()) if counted else None,
        coverage=share_covered(tally, slice(s, s + 1), entries, cluster) if counted else None,
        code_counts=count_V.tolist() if vocabulary.size <= MOST_CODES_COUNTED else None,
        **_all(summary.scales[s], summary.brackets_S[s]),
    )


def _temperature(
    temperature: TemperatureChoice,
    summary: Summary,
    temperature_S: list[float],
) -> schema.TemperatureResult:
    return schema.TemperatureResult(
        temperature=temperature,
        scales=[
            schema.SoftScale(scale=s, temperature=temperature_S[s], **_soft(estimates))
            for s, estimates in enumerate(summary.scales)
        ],
        average=Averages(*(schema.SoftEstimates(**_soft(summary.averages[kind])) for kind in AVERAGES)),
    )


def _soft(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    bound = estimates[BOUND]
    soft = {name: estimates[name] for name in schema.SOFT}
    return {**soft, BOUND: None if bound.value is None else bound}


def without_nan(value_GS: Tensor) -> list[list[float | None]]:
    """Return the rows of a table for JSON, None in place of NaN."""
    return [[None if math.isnan(value) else value for value in row] for row in value_GS.tolist()]


def _all(estimates: Mapping[str, Estimate], bracket: Bracket | None) -> dict[str, Any]:
    usage, unigram = estimates["usage"], estimates["unigram_entropy"]
    return {
        **_soft(estimates),
        "unigram_entropy": unigram,
        "perplexity": perplexity(unigram),
        "usage": usage.value,
        "usage_estimate": usage,
        "unigram_bracket": bracket,
    }
