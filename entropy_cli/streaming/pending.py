"""What is on its way from a device, of a batch that was assigned to the codes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.tokenizers.base import TokenizerSpec

BEYOND_LEVELS = 0.51  # how far outside the levels a latent may lie: rounding reaches half a level
# Advice that only the command line can follow.
OTHER_PRECISION = "The checkpoint is damaged, or the precision too low for it: try another --precision."


@dataclass
class Pending:
    """What is on its way from the device of a batch that was quantized."""

    names: list[str]
    places: list[int]
    beyond_SB: Tensor  # how far latents lie outside the levels of each scale; NaN if not finite
    idx_BL: Tensor | None  # tokens, to be written
    arrived: torch.cuda.Event | None
    nats_B: Tensor | None = None  # a generator's loss of each image; NaN if any part is not finite
    nats_N: Tensor | None = None  # where it is kept

    def check(self, spec: TokenizerSpec) -> None:
        """Raise EntropyCliError naming the first image whose latents or losses can't be used."""
        bad_XY = (~(self.beyond_SB[:, : len(self.names)] <= BEYOND_LEVELS)).nonzero()
        if not len(bad_XY):
            if self.nats_B is not None and not (finite_B := self.nats_B.isfinite()).all():
                name = self.names[int((~finite_B).nonzero()[0])]
                raise EntropyCliError(
                    f"{name}: the model's loss is NaN or infinite. It gives a token no probability, its "
                    "checkpoint is damaged, or the precision too low for it: try another --precision."
                )
            return
        scale, image = bad_XY[0].tolist()
        latents = f"{self.names[image]}: its latents at scale {scale} ({spec.scales[scale].name})"
        beyond = self.beyond_SB[scale, image].item()
        if beyond > BEYOND_LEVELS:
            raise EntropyCliError(
                f"{latents} lie up to {beyond:.3g} beyond the outermost level. Expected them bounded "
                "and in units of levels, as they are just before rounding (FSQ's bound(z))."
            )
        of_latents = "Expected numbers whose squares float32 holds."
        advice = of_latents if spec.image_size is None else OTHER_PRECISION
        raise EntropyCliError(f"{latents} are NaN or infinite, or too large. {advice}")
