"""The metrics of a step of training, which a GPU computes while the program goes on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from entropy_cli.core.errors import EntropyCliError

LOSSES = ("loss", "l1", "l2", "codebook", "commitment", "psnr_db")
METRICS = (*LOSSES, "stop", "grad_norm", "usage", "revived", "sound")


class DivergedError(EntropyCliError):
    """The loss, its gradient or a reconstruction is NaN or infinite."""

    def __init__(self, step: int) -> None:
        super().__init__(
            f"step {step}: the loss, its gradient or a reconstruction is NaN or infinite. Try a lower "
            "--lr, more --warmup, a smaller --grad-clip, or --precision fp32, with another --output. "
            "The last save is intact."
        )


@dataclass(frozen=True)
class StepMetrics:
    """The metrics of a step, on their way from the device.

    Attributes:
        step: its number, from 1.
        lr: its learning rate.
        value_M: METRICS, on the CPU once `arrived` has happened.
    """

    step: int
    lr: float
    value_M: Tensor
    arrived: torch.cuda.Event | None

    @classmethod
    def of(cls, step: int, lr: float, value_M: Tensor) -> "StepMetrics":
        """Send for METRICS that a device is computing."""
        on_cpu_M, arrived = value_M.to("cpu", non_blocking=True), None
        if value_M.device.type == "cuda":
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        return cls(step, lr, on_cpu_M, arrived)

    def read(self) -> dict[str, float]:
        """Wait for the metrics: averages over all images, and `stop` above 0 if a process is to stop.

        Raises:
            DivergedError: in all processes; neither this step nor a later one has changed anything.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        metrics = dict(zip(METRICS, self.value_M.tolist(), strict=True))
        if not metrics.pop("sound"):
            raise DivergedError(self.step)
        return metrics | {"lr": self.lr, "revived": int(metrics["revived"])}
