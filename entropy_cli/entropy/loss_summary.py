"""Estimates of a generator's losses at every scale and on average, with their standard errors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from entropy_cli.entropy.bias import Point
from entropy_cli.entropy.jackknife import jackknife_variance, t_quantile, variance_at_a_stop
from entropy_cli.entropy.loss_tally import LossTally
from entropy_cli.entropy.quantity import Cluster, Estimate, perplexity
from entropy_cli.entropy.summary import average_weights, covariance_over_images, with_error
from entropy_cli.entropy.vocabulary import Vocabulary

DROPPED = 0.1  # share of labels that VAR drops, in its own evaluation too
NO_LATENTS = "soft labels are not known: tokens were given without latents, or have too many codes"
NO_NULL_CLASS = "the model has no null class, or no image was checked with it"
MEAN, DIFFERENCE = "mean over tokens", "difference"


@dataclass(frozen=True)
class Means:
    """A mean over tokens at each scale, in nats, and the same with each group of images deleted.

    With fewer than two groups nothing can be deleted, and `deleted_GS` is None.
    """

    value_S: Tensor
    deleted_GS: Tensor | None

    @classmethod
    def of(cls, sum_GS: Tensor, images_G: Tensor, tokens_S: Tensor) -> "Means":
        """Return the means of sums over the tokens of at least one image."""
        sum_GS = sum_GS.double()  # counts too
        total_S, M = sum_GS.sum(0), images_G.sum()
        left_G1 = (M - images_G)[:, None]
        several = int((images_G > 0).sum()) > 1
        deleted_GS = (total_S - sum_GS) / (left_G1 * tokens_S) if several else None
        return cls(total_S / (M * tokens_S), deleted_GS)

    def plus(self, other: "Means", share: float = 1.0) -> "Means":
        """Return these plus a share of others, of the same images."""
        deleted_GS = None
        if self.deleted_GS is not None and other.deleted_GS is not None:
            deleted_GS = self.deleted_GS + share * other.deleted_GS
        return Means(self.value_S + share * other.value_S, deleted_GS)


@dataclass(frozen=True)
class Unigram:
    """The unigram entropy of the same tokens: estimates, and plug-in values with each group deleted."""

    scales: Sequence[Estimate]
    averages: Mapping[str, Estimate]
    deleted_GS: Tensor | None


@dataclass(frozen=True)
class LossSummary:
    """The estimates of a generator's losses, by the names that results use.

    Attributes:
        scales: for each scale, the estimates by name.
        averages: for each average, likewise.
        soft_scales: for each temperature, those against soft labels.
        soft_averages: likewise.
        worth: nats per image by which the class lowers the loss; None without checked images.
        replicates: the cross-entropy with each group deleted, (G, S); None with fewer than two groups.
    """

    scales: list[dict[str, Estimate]]
    averages: dict[str, dict[str, Estimate]]
    soft_scales: list[list[dict[str, Estimate]]]
    soft_averages: list[dict[str, dict[str, Estimate]]]
    worth: Estimate | None
    replicates: Tensor | None


def summarise_losses(
    losses: LossTally,
    vocabularies: Sequence[Vocabulary],
    assignment: Sequence[Means],
    unigram: Unigram,
    cluster: Cluster = "image",
    *,
    stopped_early: bool = False,
) -> LossSummary:
    """Estimate every loss from the sums of at least one image.

    Args:
        losses: sums on the CPU.
        vocabularies: the codes of each scale.
        assignment: the assignment entropy of the same images at each temperature, the headline first.
        unigram: the unigram entropy of the same tokens.
        cluster: what the groups keep together.
        stopped_early: whether the cross-entropy's intervals decided that these are all the images.
    """
    tally = _Summariser(losses, vocabularies, assignment, unigram, cluster, stopped_early)
    S = len(losses.tokens_S)
    one_scale_SS = torch.eye(S, dtype=torch.float64)
    weights = average_weights(losses.tokens_S)
    temperatures = range(len(assignment))
    replicates = Means.of(losses.cross_entropy_GS, losses.images_G, losses.tokens_S).deleted_GS
    return LossSummary(
        [tally.all(one_scale_SS[s], unigram.scales[s]) for s in range(S)],
        {key: tally.all(weight_S, unigram.averages[key]) for key, weight_S in weights.items()},
        [[tally.soft(one_scale_SS[s], t) for s in range(S)] for t in temperatures],
        [{key: tally.soft(weight_S, t) for key, weight_S in weights.items()} for t in temperatures],
        _worth(losses),
        replicates,
    )


@dataclass(frozen=True)
class _Summariser:
    """The sums, and what turns them into estimates of one average after the other."""

    losses: LossTally
    vocabularies: Sequence[Vocabulary]
    assignment: Sequence[Means]
    unigram: Unigram
    cluster: Cluster
    stopped_early: bool

    def all(self, weight_S: Tensor, unigram: Estimate) -> dict[str, Estimate]:
        """Return every estimate of one average, given its unigram entropy."""
        sums = self.losses
        log_V = float(weight_S @ torch.tensor([math.log(v.size) for v in self.vocabularies]).double())
        loss = self._means(sums.cross_entropy_GS)
        cross_entropy = self._estimate(loss, weight_S, is_watched=self.stopped_early)
        return {
            "cross_entropy": cross_entropy,
            "perplexity": perplexity(cross_entropy),
            "accuracy_top1": self._estimate(self._means(sums.top1_GS), weight_S, largest=1.0),
            "accuracy_top5": self._estimate(self._means(sums.top5_GS), weight_S, largest=1.0),
            "predictive_entropy": self._estimate(
                self._means(sums.predictive_entropy_GS), weight_S, largest=log_V
            ),
            "reducible": self._estimate(
                loss.plus(self.assignment[0], -1), weight_S, least=-math.inf, name=DIFFERENCE
            ),
            "gain": self._gain(loss, weight_S, unigram),
            **self._checked(weight_S),
            **self.soft(weight_S, 0),
        }

    def soft(self, weight_S: Tensor, t: int) -> dict[str, Estimate]:
        """Return the losses against the soft labels at one temperature."""
        if self.losses.kl_GST.shape[2] == 0:
            return dict.fromkeys(("target_cross_entropy", "kl"), _none(NO_LATENTS))
        kl = self._means(self.losses.kl_GST[..., t])
        return {
            "target_cross_entropy": self._estimate(kl.plus(self.assignment[t]), weight_S),
            "kl": self._estimate(kl, weight_S),
        }

    def _means(self, sum_GS: Tensor) -> Means:
        return Means.of(sum_GS, self.losses.images_G, self.losses.tokens_S)

    def _checked(self, weight_S: Tensor) -> dict[str, Estimate]:
        """Return the losses of the images that were checked with the null class."""
        sums = self.losses
        if not sums.checked_G.any():
            return dict.fromkeys(("cross_entropy_null", "as_logged"), _none(NO_NULL_CLASS))
        label, null = (
            Means.of(sum_GS, sums.checked_G, sums.tokens_S)
            for sum_GS in (sums.checked_cross_entropy_GS, sums.checked_null_GS)
        )
        as_logged = label.plus(label, -DROPPED).plus(null, DROPPED)
        return {
            "cross_entropy_null": self._estimate(null, weight_S, sums.checked_G),
            "as_logged": self._estimate(as_logged, weight_S, sums.checked_G),
        }

    def _gain(self, loss: Means, weight_S: Tensor, unigram: Estimate) -> Estimate:
        """Return the unigram entropy minus the cross-entropy; a bound where that entropy is one."""
        if unigram.value is None or unigram.plug_in is None:
            return _none(unigram.note or "")
        mean = float(weight_S @ loss.value_S)
        variance, deleted_GS = None, self.unigram.deleted_GS
        if deleted_GS is not None and loss.deleted_GS is not None:
            used_S = weight_S > 0
            gains_GS = deleted_GS - loss.deleted_GS
            deleted_G = gains_GS[:, used_S] @ weight_S[used_S]
            variance = self._variance(unigram.plug_in - mean, deleted_G, self.losses.images_G)
        point = Point(unigram.value - mean, unigram.plug_in - mean, DIFFERENCE, unigram.note)
        return with_error(point, variance, self.losses.images_G, least=-math.inf)

    def _estimate(
        self,
        means: Means,
        weight_S: Tensor,
        images_G: Tensor | None = None,
        *,
        name: str = MEAN,
        least: float = 0.0,
        largest: float = math.inf,
        is_watched: bool = False,
    ) -> Estimate:
        """Return a mean of one average with its error; `images_G` are the images that it is of."""
        images_G = self.losses.images_G if images_G is None else images_G
        value, variance = float(weight_S @ means.value_S), None
        if means.deleted_GS is not None:
            variance = self._variance(value, means.deleted_GS @ weight_S, images_G)
            if is_watched and self.cluster == "image":
                _, products_SS, _, tokens_S = self.losses.watched
                total_S = self.losses.cross_entropy_GS.sum(0)
                covariance_SS = covariance_over_images(total_S, products_SS, images_G, tokens_S)
                over_images = (weight_S @ covariance_SS @ weight_S).numpy()
                variance = float(variance_at_a_stop(np.asarray(variance), over_images, images_G.numpy()))
        point = Point(value, value, name)
        return with_error(point, variance, images_G, least=least, largest=largest)

    def _variance(self, value: float, deleted_G: Tensor, images_G: Tensor) -> float:
        return float(
            jackknife_variance(np.asarray(value), deleted_G.numpy(), images_G.numpy(), self.cluster)
        )


def _worth(losses: LossTally) -> Estimate | None:
    """Return the nats per image by which the class lowers the loss of the checked images, paired."""
    images = int(losses.checked_G.sum())
    if not images:
        return None
    mean = (losses.checked_null_GS - losses.checked_cross_entropy_GS).sum().item() / images
    se = ci95 = note = None
    if images > 1:
        square = losses.worth_squares_G.sum().item() / images
        se = math.sqrt(max(0.0, square - mean * mean) / (images - 1))
        half_width = t_quantile(images - 1) * se
        ci95 = mean - half_width, mean + half_width
    else:
        note = "no error: one image"
    return Estimate(mean, mean, se, ci95, "mean over images of the paired difference", note)


def _none(note: str) -> Estimate:
    return Estimate(None, None, None, None, "none", note)
