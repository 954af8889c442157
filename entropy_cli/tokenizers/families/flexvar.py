"""Family: FlexVAR's tokenizer: scales that are each of the whole latent, without a residual.

Source:
    jiaosiyu1999/FlexVAR models/vq_llama.py, trainer.py (encode_var_wo_firstL), dataset/augmentation.py
    (ADM's crop; training takes its random variant).
"""

from typing import ClassVar

from torch import Tensor

from entropy_cli.tokenizers.base import Scale
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Temperature, Traits
from entropy_cli.tokenizers.families import llamagen
from entropy_cli.tokenizers.families.var import VARTokenizer
from entropy_cli.tokenizers.family import Family, Plan
from entropy_cli.tokenizers.names import CODEBOOK
from entropy_cli.tokenizers.preprocess import adm_crop

PATCH_NUMS = {256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)}  # which training mostly varies


class FlexVARTokenizer(VARTokenizer):
    """FlexVAR's encoder and quantiser; see `tokenizers.base.Tokenizer`."""

    def subtract(self, rest_BChw: Tensor, idx_Bl: Tensor, scale: int) -> Tensor:
        """Return the latent as it is: every scale is of all of it."""
        return rest_BChw


class FlexVAR(Family):
    """The family: LlamaGen's layout, with codes of more numbers."""

    REQUIRED = llamagen.LlamaGen.REQUIRED
    IDENTIFYING_KEYS: ClassVar = {CODEBOOK: f"codes of {llamagen.FLEXVAR_DIM} numbers"}
    LAYOUT = llamagen.LAYOUT
    NOTES = (
        "no codes are subtracted between scales: each is the whole latent, averaged to its grid. "
        "FlexVAR's training draws its scales for each batch; these are its default ones",
        "told from LlamaGen by codes of "
        f"{llamagen.FLEXVAR_DIM} numbers: for a LlamaGen of such codes give --family llamagen",
    )
    TRAITS = Traits(
        family="flexvar",
        published_by="FlexVAR",
        rule="cosine",
        temperatures={"cosine": Temperature((0.01,), "compute_entropy_loss in FlexVAR's quantiser")},
        crop=adm_crop,
    )
    TOKENIZER = FlexVARTokenizer

    def conflicting_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List what marks LlamaGen: codes of other dimensions."""
        dims = checkpoint.shapes.get(CODEBOOK, ())[1:]
        return [] if dims == (llamagen.FLEXVAR_DIM,) else ["has codes of other dimensions"]

    def _scales(self, plan: Plan) -> tuple[Scale, ...]:
        return self._pyramid(plan, PATCH_NUMS)
