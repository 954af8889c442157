"""entropy-cli: an irreducible-loss estimator for discrete visual tokenizers.

>>> import torch
>>> from entropy_cli import estimate
>>> latents_BlC = torch.randn(8, 4, 2)                       # of eight images with four tokens each
>>> codebook_VC = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
>>> result = estimate([latents_BlC], lambda batch: batch, codebook=codebook_VC, temperature=0.5)
>>> 0 < result.average.token_weighted.assignment_entropy.value < 1.0987      # ln 3
True
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["Floor", "estimate", "evaluate", "load_tokenizer", "read_result"]

if TYPE_CHECKING:
    from entropy_cli.api.estimate import estimate, load_tokenizer
    from entropy_cli.api.evaluate import evaluate
    from entropy_cli.commands.monitor.api import Floor
    from entropy_cli.results.schema import read_result
else:  # a type checker takes any name from a module that has __getattr__

    def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's
        """Import a public function when it is used: the command line's help needs no torch."""
        if name == "Floor":
            from entropy_cli.commands.monitor.api import Floor

            return Floor
        if name == "read_result":
            from entropy_cli.results.schema import read_result

            return read_result
        if name == "evaluate":
            from entropy_cli.api.evaluate import evaluate

            return evaluate
        if name in __all__:
            from entropy_cli.api import estimate as api

            return getattr(api, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public functions beside what every module has."""
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
