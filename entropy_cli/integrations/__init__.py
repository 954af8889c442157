"""The floor in the loops of other programs: a logger for any, and callbacks for frameworks.

`entropy_cli.integrations.hf.FloorCallback` is for Hugging Face's Trainer (the extra hf) and
`entropy_cli.integrations.lightning.FloorCallback` for Lightning's (the extra lightning). This package
imports neither.
"""

from entropy_cli.integrations.logger import FloorLogger

__all__ = ["FloorLogger"]
