"""What the weights don't tell about a tokenizer: from the command line, else from config.json beside."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from entropy_cli.errors import CheckpointError
from entropy_cli.files import ordinary
from entropy_cli.functional.codebook import Rule
from entropy_cli.functional.vocabulary import VECTOR_RULES

Weights = Literal["raw", "ema"]  # the weights as trained last, or averaged over the training


@dataclass(frozen=True)
class TokenizerSettings:
    """None means: let the family decide."""

    image_size: int | None = None
    patch_nums: tuple[int, ...] | None = None
    rule: Rule | None = None
    weights: Weights | None = None
    norm_groups: int | None = None

    def else_from(self, other: "TokenizerSettings") -> "TokenizerSettings":
        """Fill what is None from another."""
        return TokenizerSettings(
            self.image_size or other.image_size,
            self.patch_nums or other.patch_nums,
            self.rule or other.rule,
            self.weights or other.weights,
            self.norm_groups or other.norm_groups,
        )


def read_config(folder: Path, decided: TokenizerSettings) -> TokenizerSettings:
    """Read config.json in a checkpoint's folder; everything None if there is none.

    Keys read: image_size (or reso, resolution), patch_nums (or v_patch_nums), norm_num_groups, and rule
    ("l2", "cosine" or "dot") or using_znorm (or cosine; true or false). Others are ignored.

    Args:
        folder: of the checkpoint.
        decided: by the caller; what is there is not looked at.

    Raises:
        CheckpointError: the file is not JSON, or one of those keys is not of its kind.
    """
    path = folder / "config.json"
    try:
        config = json.loads(ordinary(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return TokenizerSettings()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: can't be read as JSON: {error}. Mend or remove it.") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: got {type(config).__name__}, expected a JSON object.")

    def value(*names: str) -> Any:  # noqa: ANN401 - JSON
        return next((config[name] for name in names if config.get(name) is not None), None)

    image_size, patch_nums, znorm, norm_groups = (
        value("image_size", "reso", "resolution"),
        value("patch_nums", "v_patch_nums"),
        value("using_znorm", "cosine"),
        value("norm_num_groups"),
    )
    rule = value("rule")
    for name, got, ours, fits, expected in (
        ("image_size", image_size, decided.image_size, _positive, "a positive integer"),
        ("norm_num_groups", norm_groups, decided.norm_groups, _positive, "a positive integer"),
        ("patch_nums", patch_nums, decided.patch_nums, _positive_list, "positive integers"),
        ("using_znorm", znorm, decided.rule, lambda flag: isinstance(flag, bool), "true or false"),
        ("rule", rule, decided.rule, VECTOR_RULES.__contains__, "l2, cosine or dot"),
    ):
        if got is not None and ours is None and not fits(got):
            raise CheckpointError(f"{path}: {name} {got!r}, expected {expected}.")
    if rule is None and znorm is not None:
        rule = "cosine" if znorm else "l2"
    return TokenizerSettings(
        image_size,
        tuple(patch_nums) if isinstance(patch_nums, list) else None,
        rule,
        norm_groups=norm_groups,
    )


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _positive_list(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_positive, value))
