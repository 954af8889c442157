"""From a finished tally to a Result."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from torch import Tensor

from entropy_cli import __version__
from entropy_cli.data.images import GROUPS, ImageSet
from entropy_cli.engine.progress import Progress
from entropy_cli.errors import DatasetError
from entropy_cli.functional.estimators import coverage
from entropy_cli.functional.quantity import Estimate, perplexity
from entropy_cli.functional.summary import Summary, summarise
from entropy_cli.results import schema
from entropy_cli.results.state import settings_fingerprint
from entropy_cli.tokenizers.base import TokenizerSpec

MOST_CODES_COUNTED = 65_536  # above, code_counts would make the file unwieldy


def build_result(
    spec: TokenizerSpec,
    images: ImageSet,
    progress: Progress,
    settings: Mapping[str, Any],
    *,
    temperature_source: str,
    provenance: dict[str, Any],
) -> schema.Result:
    """Estimate everything from what a run accumulated.

    Args:
        spec: of the tokenizer.
        images: what was read.
        progress: with every block done.
        settings: of the run, as in its state.
        temperature_source: where the headline temperature is from, in words.
        provenance: who, where, when and how fast.

    Raises:
        DatasetError: not one image could be read.
    """
    assert progress.tally is not None and progress.temperatures is not None
    _check_some_read(images, progress)
    tally = progress.tally.to("cpu")
    given = settings["temperature"]
    temperatures: list[Any] = ["auto"] if given == "auto" else given
    summaries = [summarise(tally, t) for t in range(len(temperatures))]
    headline = summaries[0]
    return schema.Result(
        schema=schema.SCHEMA,
        schema_version=schema.SCHEMA_VERSION,
        tool_version=__version__,
        created_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        units="nats per token",
        tokenizer=_tokenizer(spec, settings),
        data=_data(images, progress, settings),
        settings=schema.SettingsInfo(
            temperature=temperatures[0],
            temperature_source=temperature_source,
            image_size=spec.image_size,
            preprocess=spec.crop.words,
            precision=settings["precision"],
            seed=images.seed,
            groups=GROUPS,
        ),
        scales=[
            _scale(spec, s, progress.temperatures[s][0], headline, tally.counts_GSV[:, s].sum(0))
            for s in range(len(spec.scales))
        ],
        average=schema.Averages(
            **{kind: schema.Estimates(**_all(of)) for kind, of in headline.averages.items()}
        ),
        temperatures=[
            _temperature(temperatures[t], summary, [of_scale[t] for of_scale in progress.temperatures])
            for t, summary in enumerate(summaries)
        ],
        history=progress.history,
        replicates={
            "images": tally.images_G.tolist(),
            **{name: deleted_GS.tolist() for name, deleted_GS in headline.deleted.items()},
        },
        precision_check=None,
        target_reached=None,
        provenance=provenance,
    )


def _check_some_read(images: ImageSet, progress: Progress) -> None:
    if not progress.images:
        path, reason = progress.failed[0]
        raise DatasetError(
            f"{images.source.name}: none of the {len(images.files)} images could be read; "
            f"the first, {path}: {reason}. Check --data."
        )


def _tokenizer(spec: TokenizerSpec, settings: Mapping[str, Any]) -> schema.TokenizerInfo:
    return schema.TokenizerInfo(
        family=spec.family,
        vocab_size=spec.vocab_size,
        latent_dim=spec.latent_dim,
        patch_nums=spec.patch_nums,
        rule=spec.rule,
        checkpoint_sha256=settings["checkpoint_sha256"],
    )


def _data(images: ImageSet, progress: Progress, settings: Mapping[str, Any]) -> schema.DataInfo:
    return schema.DataInfo(
        split=images.split,
        images_found=images.found,
        images_used=progress.images,
        images_failed=len(progress.failed),
        failed=[path for path, _ in progress.failed],
        fingerprint=settings_fingerprint(settings),
        images_fingerprint=settings["images_fingerprint"],
    )


def _scale(
    spec: TokenizerSpec, s: int, temperature: float, summary: Summary, count_V: Tensor
) -> schema.ScaleResult:
    scale = spec.scales[s]
    return schema.ScaleResult(
        scale=s,
        name=scale.name,
        patch_num=scale.patch_num,
        tokens=scale.tokens,
        temperature=temperature,
        codes_used=int((count_V > 0).sum()),
        coverage=coverage(count_V),
        code_counts=count_V.tolist() if len(count_V) <= MOST_CODES_COUNTED else None,
        **_all(summary.scales[s]),
    )


def _temperature(
    temperature: Any,  # noqa: ANN401 - a number or "auto"
    summary: Summary,
    temperature_S: list[float],
) -> schema.TemperatureResult:
    return schema.TemperatureResult(
        temperature=temperature,
        scales=[
            schema.SoftScale(scale=s, temperature=temperature_S[s], **_soft(estimates))
            for s, estimates in enumerate(summary.scales)
        ],
        average=schema.SoftAverages(
            **{kind: schema.SoftEstimates(**_soft(of)) for kind, of in summary.averages.items()}
        ),
    )


def _soft(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    names = ("assignment_entropy", "marginal_entropy", "mutual_information", "varentropy")
    return {name: estimates[name] for name in names}


def _all(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    usage, unigram = estimates["usage"], estimates["unigram_entropy"]
    return {
        **_soft(estimates),
        "unigram_entropy": unigram,
        "perplexity": perplexity(unigram),
        "usage": usage.value,
        "usage_estimate": replace(usage, ci95=usage.ci95 and (usage.ci95[0], min(1.0, usage.ci95[1]))),
    }
