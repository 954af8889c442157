"""Evaluations made by hand: losses in the parts of an estimate, with replicates that fit them."""

import math
from dataclasses import replace

import numpy as np

from entropy_cli.entropy.jackknife import jackknife_variance, t_quantile
from entropy_cli.entropy.quantity import AVERAGES, Averages, Estimate, HistoryPoint
from entropy_cli.results.evaluation import (
    Evaluation,
    LabelCheck,
    LabelsInfo,
    Losses,
    ModelInfo,
    SoftLosses,
    TemperatureLosses,
    Total,
)

NO_NULL = "without a label check"
MODEL = ModelInfo(
    family="var",
    checkpoint_sha256="ab" * 32,
    parameters=1_433_744,
    width=128,
    depth=4,
    heads=4,
    classes=1000,
    precision="fp32",
)


def unknown(note):
    """What can't be had, and why."""
    return Estimate(None, None, None, None, "none", note)


def mean(value, se=None, degrees=31):
    """An estimate of a mean, with its interval."""
    half = None if se is None else t_quantile(degrees) * se
    ci95 = None if half is None else (value - half, value + half)
    return Estimate(float(value), float(value), se, ci95, "mean")


def weights_of(estimate):
    """The weights of the scales in each average."""
    tokens_S = np.array([scale.tokens for scale in estimate.scales], float)
    last_S = np.eye(len(tokens_S))[-1]
    return {
        "token_weighted": tokens_S / tokens_S.sum(),
        "over_scales": np.full(len(tokens_S), 1 / len(tokens_S)),
        "last_scale": last_S,
    }


def evaluation_of(estimate, *, below=0.4, noise=0.01, seed=0, worth=60.0, soft=True, model=MODEL):
    """An evaluation whose cross-entropy is `below` the unigram entropy at each scale.

    Args:
        estimate: the Result that it is of.
        below: nats per token.
        noise: standard deviation of the cross-entropy without each group, nats per token.
        seed: of that noise.
        worth: nats an image by which the classes lower the loss, with an error of 4; None for no check.
        soft: whether the losses against q are known.
        model: a ModelInfo.
    """
    images_G = np.array(estimate.replicates["images"])
    unigram_S = np.array([scale.unigram_entropy.known for scale in estimate.scales])
    tokens, weights = sum(scale.tokens for scale in estimate.scales), weights_of(estimate)
    value_S = np.maximum(unigram_S - below, 0.01)
    noise_GS = np.random.default_rng(seed).normal(0, noise, (len(images_G), len(value_S)))
    deleted_GS = np.where(images_G[:, None] > 0, value_S + noise_GS, np.nan)

    def losses(estimates, temperature, weight_S):
        value, deleted_G = value_S @ weight_S, deleted_GS @ weight_S
        se = math.sqrt(jackknife_variance(np.asarray(value), deleted_G, images_G))
        null = unknown(NO_NULL) if worth is None else mean(value + worth / tokens, se)
        logged = null if worth is None else mean(value + 0.1 * worth / tokens, se)
        return Losses(
            cross_entropy=mean(value, se),
            accuracy_top1=mean(0.25, 0.01),
            accuracy_top5=mean(0.5, 0.012),
            predictive_entropy=mean(min(value + 0.02, math.log(estimate.tokenizer.vocab_size)), se),
            perplexity=mean(math.exp(value), math.exp(value) * se),
            cross_entropy_null=null,
            as_logged=logged,
            reducible=mean(value - estimates.assignment_entropy.known, se),
            gain=replace(
                mean(estimates.unigram_entropy.known - value, se), note=estimates.unigram_entropy.note
            ),
            **vars(soft_losses(temperature)),
        )

    def soft_losses(estimates):
        if not soft:
            return SoftLosses(target_cross_entropy=unknown("no latents"), kl=unknown("no latents"))
        return SoftLosses(
            target_cross_entropy=mean(estimates.assignment_entropy.known + 0.7, 0.01), kl=mean(0.7, 0.01)
        )

    rows = np.eye(len(value_S))
    first = estimate.temperatures[0]
    average = {
        kind: losses(getattr(estimate.average, kind), getattr(first.average, kind), weights[kind])
        for kind in AVERAGES
    }
    nats, size = tokens * average["token_weighted"].cross_entropy.known, estimate.settings.image_size
    replicates = [[None if math.isnan(v) else v for v in row] for row in deleted_GS.tolist()]
    return Evaluation(
        estimate=replace(
            estimate,
            replicates={**estimate.replicates, "cross_entropy": replicates},
            provenance={**estimate.provenance, "model": "runs/var_d4.pth", "model_notes": []},
        ),
        model=model,
        labels=LabelsInfo("wnid", 7, None if worth is None else LabelCheck(64, mean(worth, 4.0)), []),
        scales=[losses(*each) for each in zip(estimate.scales, first.scales, rows, strict=True)],
        average=Averages(**average),
        temperatures=[
            TemperatureLosses(
                list(map(soft_losses, at.scales)),
                Averages(*(soft_losses(part) for _, part in at.average.items())),
            )
            for at in estimate.temperatures
        ],
        total=Total(nats, None if size is None else nats / math.log(2) / size**2),
        cross_entropy_history=[HistoryPoint(n, 4.0 + 1 / n, 0.3 / n, 0.4 / n) for n in (32, 64, 70)],
    )
