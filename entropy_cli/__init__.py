"""entropy-cli: an irreducible-loss estimator for discrete visual tokenizers.

>>> import torch
>>> from entropy_cli import estimate
>>> latents_BlC = torch.randn(8, 4, 2)                       # of eight images with four tokens each
>>> codebook_VC = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
>>> result = estimate([latents_BlC], lambda batch: batch, codebook=codebook_VC, temperature=0.5)
>>> 0 < result.average.token_weighted.assignment_entropy.value < 1.0987      # ln 3
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
# The module of each public function or class, which is imported when it is used: the command line's help
# needs no torch.
MODULES = {
    "Floor": "commands.monitor.api",
    "estimate": "api.estimate",
    "evaluate": "api.evaluate",
    "load_tokenizer": "api.estimate",
    "read_evaluation": "results.evaluation",
    "read_result": "results.schema",
}
__all__ = ["Floor", "estimate", "evaluate", "load_tokenizer", "read_evaluation", "read_result"]

if TYPE_CHECKING:
    from entropy_cli.api.estimate import estimate, load_tokenizer
    from entropy_cli.api.evaluate import evaluate
    from entropy_cli.commands.monitor.api import Floor
    from entropy_cli.results.evaluation import read_evaluation
    from entropy_cli.results.schema import read_result
else:  # a type checker takes any name from a module that has __getattr__

    def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's
        """Import a public function or class."""
        if name in MODULES:
            return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public functions beside what every module has."""
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
