"""The floor of a model's losses inside its training loop, from Python. Imports no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from entropy_cli.commands.monitor.logs.series import Metric, Split
from entropy_cli.commands.monitor.result import RunFinding
from entropy_cli.commands.monitor.watch import Watch
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.files import path_argument
from entropy_cli.entropy.quantity import Labels
from entropy_cli.results import floors
from entropy_cli.results.excess import Excess, ScaleExcess, excess, excess_of_scales

HELD_OUT = "val "
Scope = Literal["mean", "last"] | int


class Floor:
    """The floor and the ceilings of a model's losses, from a result of `estimate`.

    It takes losses as they come, in nats per token, and says what `monitor` would say of their log: as
    soon as it is certain, and once each. It can be pickled into a checkpoint, with what it has seen.

    A training loop of VAR, whose L_mean is over all tokens and whose L_tail is over the final scale:

        floor = entropy_cli.Floor.load("result.json")
        for step, (logits_BLV, idx_BL) in enumerate(train()):
            loss_L = cross_entropy(logits_BLV.mT, idx_BL, reduction="none").mean(0)
            L_mean, L_tail = loss_L.mean().item(), loss_L[-patch_nums[-1] ** 2 :].mean().item()
            for finding in floor.check(L_mean, "mean", step) + floor.check(L_tail, "last", step):
                print(step, finding.severity, finding.message)

    Attributes:
        levels: the floors themselves, with their source.
    """

    def __init__(self, levels: floors.Floor) -> None:
        self.levels = levels
        self._watch = Watch(levels)

    @classmethod
    def load(cls, path: str | Path) -> "Floor":
        """Read the floors and ceilings from a result file of `estimate`.

        Raises:
            ResultError: the file can't be read, or is not a result.
        """
        return cls(floors.read_floor(path_argument("path", path)))

    def __repr__(self) -> str:
        """Return a line: the floor of the mean, and where it is from."""
        mean = self.levels.mean
        value = "unknown" if mean is None else f"A = {mean.floor:.4f} nats per token"
        return f"Floor({value}; {self.levels.source})"

    @property
    def labels(self) -> Labels:
        """Return what models on the tokens are trained on: of hard labels A is no floor."""
        return self.levels.labels

    @property
    def tokens_S(self) -> list[int]:
        """The tokens of an image at each scale, (S,): splits losses (B, L) into those of the scales."""
        return [scale.tokens for scale in self.levels.by_scale]

    def excess(self, losses_S: Any) -> ScaleExcess:  # noqa: ANN401 - also arrays and tensors
        """Set the mean losses of all scales beside their floors and ceilings.

        Args:
            losses_S: cross-entropies in nats per token, (S,): a list, an array or a tensor.

        Returns:
            For each scale, and for the averages over tokens, over scales and of the last scale:
            `ce_minus_a`, the loss minus A, which may be negative under hard labels; and `below`, how far
            the loss lies below each ceiling, by its name. In nats per token; `metrics(name)` has them
            flat. NaN stays NaN.

        Raises:
            ShapeError: it is not one loss for each scale.
        """
        listed = losses_S.tolist() if hasattr(losses_S, "tolist") else losses_S
        losses = listed if isinstance(listed, Sequence) else [listed]
        return excess_of_scales([as_number(loss) for loss in losses], self.levels)

    def excess_of(self, loss: Any, series: str = "mean") -> Excess | None:  # noqa: ANN401 - also a tensor
        """Set one loss beside its floor and ceilings; None where the result has none for it.

        Args:
            loss: a cross-entropy in nats per token.
            series: as of `check`.
        """
        _, level = self._series(series)
        return None if level is None else excess(as_number(loss), level, self.levels.vocab_size)

    def check(
        self,
        value: Any,  # noqa: ANN401 - also a tensor
        series: str = "mean",
        step: float | None = None,
    ) -> list[RunFinding]:
        """Add a loss to those seen so far, and return what is found about its series only now.

        Args:
            value: a cross-entropy in nats per token; NaN is a finding.
            series: "mean" over all tokens (VAR's L_mean), "last" over those of the final scale (L_tail),
                or "scale k", k from 0; with "val " before it where it is of held-out images.
            step: of training; None counts the values. One at or before the last, as after resuming an
                earlier checkpoint, replaces what came since.

        Returns:
            New findings, with the ids of `monitor`: most often none. A finding that needs noise to be
            judged has to hold at two looks at the series.

        Raises:
            EntropyCliError: there is no such series.
        """
        metric, level = self._series(series)
        return self._watch.add(metric, level, as_number(value), step)

    def history(self) -> dict[str, tuple[list[float], list[float]]]:
        """Return the steps and the losses seen so far, by series: plain numbers, for a checkpoint."""
        curves = self._watch.curves.items()
        return {name: (curve.steps.tolist(), curve.values.tolist()) for name, curve in curves}

    def replay(self, history: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
        """See the losses of a history; what is found about them is not told again."""
        for name, (steps, losses) in history.items():
            for step, loss in zip(steps, losses, strict=True):
                self.check(loss, name, step)

    def _series(self, name: str) -> tuple[Metric, floors.Level | None]:
        """Return the metric and the floor of a series; raise EntropyCliError if there is none."""
        subject, scales = name.removeprefix(HELD_OUT), self.levels.by_scale
        known: dict[str, tuple[Scope, floors.Level | None]] = {
            "mean": ("mean", self.levels.mean),
            "last": ("last", self.levels.last),
            **{f"scale {s}": (scale.side or s, scale.level) for s, scale in enumerate(scales)},
        }
        if subject not in known:
            more = f" or scale 0 to scale {len(scales) - 1}" if scales else ""
            expected = f"expected mean, last{more}; of held-out images with 'val ' before it"
            raise EntropyCliError(f"series {name!r}: {expected}.")
        scope, level = known[subject]
        split: Split = "train" if subject == name else "val"
        of = Metric(name, split, "cross_entropy", scope, unit="nats per token", target="tokens")
        return of, level


def as_number(value: Any, name: str = "loss") -> float:  # noqa: ANN401 - also a tensor of one element
    """Return a value as a float; raise EntropyCliError if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise EntropyCliError(f"{name}: got {str(value)[:60]!r}, expected a number.") from error
