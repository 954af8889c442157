"""Build the result of an evaluation: an estimate, with a generator's losses in every part."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from entropy_cli.entropy.ladder.ladder import Ladder
from entropy_cli.entropy.loss_summary import LossSummary, Means, Unigram, summarise_losses
from entropy_cli.entropy.loss_tally import LossTally
from entropy_cli.entropy.quantity import AVERAGES, Averages
from entropy_cli.entropy.stopping import history_point
from entropy_cli.results import evaluation
from entropy_cli.results.evaluation import Evaluation
from entropy_cli.results.evaluations.checks import with_checks
from entropy_cli.results.schema import Result
from entropy_cli.runs.build_result import build_result, without_nan
from entropy_cli.streaming.state import ModelMetadata, RunState


def evaluation_or_result(
    state: RunState,
    given: Result | None,
    target_reached: bool | None,  # noqa: FBT001 - a value of the result
    provenance: dict[str, Any],
    ladder: Ladder | None,
) -> Evaluation | Result:
    """Return the result of a run: of a generator an evaluation.

    Args:
        state: of a run that has read at least one image.
        given: the result whose tokens the run was given; None estimates from the run's own sums.
        target_reached: whether the estimate became as narrow as its target; None without one.
        provenance: the command, the machine and its speed.
        ladder: of the tokens, if it was asked for.
    """
    progress = state.progress
    if not state.settings.has_losses:
        result = build_result(state, target_reached=target_reached, provenance=provenance)
        return replace(result, ladder=ladder)
    if given is None:
        assert progress.tally is not None
        # The run watched the cross-entropy: of the assignment entropy there is the last point.
        history = [history_point(*progress.tally.to("cpu").watched, state.settings.cluster)]
        own = replace(state, progress=replace(progress, history=history))
        given = build_result(own, target_reached=target_reached, provenance=provenance)
        given = replace(given, ladder=ladder)
    else:
        provenance = {**given.provenance, **state.metadata.provenance, **provenance}
        given = replace(given, target_reached=target_reached, provenance=provenance)
    return build_evaluation(state, given)


def build_evaluation(state: RunState, estimate: Result) -> Evaluation:
    """Estimate a generator's losses from what a run accumulated.

    Args:
        state: of a run that has read at least one image.
        estimate: the result of the same images.
    """
    progress, settings, metadata = state.progress, state.settings, state.metadata
    model = metadata.model
    assert progress.losses is not None and model is not None
    losses = progress.losses.to("cpu")
    summary = summarise_losses(
        losses,
        metadata.vocabularies,
        _assignment(state, estimate),
        Unigram(
            [scale.unigram_entropy for scale in estimate.scales],
            {name: average.unigram_entropy for name, average in estimate.average.items()},
            _replicates(estimate, "unigram_entropy"),
        ),
        settings.cluster,
        stopped_early=bool(estimate.target_reached),
    )
    replicates = dict(estimate.replicates)
    if summary.replicates is not None:
        replicates["cross_entropy"] = without_nan(summary.replicates)
    nats = summary.averages["token_weighted"]["cross_entropy"].known * int(losses.tokens_S.sum())
    size, check = settings.image_size, progress.model_check
    per_pixel = None if size is None else nats / math.log(2) / size**2
    found = Evaluation(
        estimate=replace(estimate, replicates=replicates),
        model=model.info,
        labels=_labels(model, losses, summary),
        scales=[evaluation.Losses(**found) for found in summary.scales],
        average=Averages(*(evaluation.Losses(**summary.averages[name]) for name in AVERAGES)),
        temperatures=_temperatures(summary),
        total=evaluation.Total(nats, per_pixel),
        cross_entropy_history=progress.history,
        model_precision_check=None if check is None else evaluation.ModelPrecisionCheck(**check),
    )
    return with_checks(found)


def _assignment(state: RunState, estimate: Result) -> list[Means]:
    """Return the assignment entropy at each temperature; of saved tokens, as their result says."""
    if (tally := state.progress.tally) is not None:
        tally = tally.to("cpu")
        number = tally.entropy_GST.shape[2]
        sums = [tally.entropy_GST[..., t] for t in range(number)]
        return [Means.of(sum_GS, tally.images_G, tally.tokens_S) for sum_GS in sums]
    deleted_GS = _replicates(estimate, "assignment_entropy")
    return [
        Means(_values([scale.assignment_entropy.plug_in for scale in at.scales]), deleted_GS)
        for at in estimate.temperatures
    ]


def _replicates(estimate: Result, name: str) -> Tensor | None:
    """Return the values of a quantity with each group deleted, (G, S), NaN where undefined."""
    rows = estimate.replicates.get(name)
    return torch.stack([_values(row) for row in rows]) if rows else None


def _values(given: Iterable[float | None]) -> Tensor:
    return torch.tensor([math.nan if v is None else v for v in given], dtype=torch.float64)


def _temperatures(summary: LossSummary) -> list[evaluation.TemperatureLosses]:
    return [
        evaluation.TemperatureLosses(
            [evaluation.SoftLosses(**found) for found in scales],
            Averages(*(evaluation.SoftLosses(**averages[name]) for name in AVERAGES)),
        )
        for scales, averages in zip(summary.soft_scales, summary.soft_averages, strict=True)
    ]


def _labels(model: ModelMetadata, losses: LossTally, summary: LossSummary) -> evaluation.LabelsInfo:
    check = None
    if summary.worth is not None:
        check = evaluation.LabelCheck(int(losses.checked_G.sum()), summary.worth)
    return evaluation.LabelsInfo(model.label_source, model.classes_seen, check, model.label_notes)
