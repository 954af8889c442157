"""The config.json beside a checkpoint: settings and classes that the weights do not show."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from entropy_cli.core.errors import CheckpointError
from entropy_cli.core.reading import CONFIG_BYTES, parse_json, read_bytes
from entropy_cli.entropy.vocabulary import VECTOR_RULES
from entropy_cli.tokenizers.limits import MOST_GROUPS, MOST_PIXELS, MOST_SCALES, MOST_SIDE
from entropy_cli.tokenizers.settings import TokenizerSettings

FILE = "config.json"
# Keys that name a class of models, and places where a model of several parts describes its tokenizer.
CLASS_KEYS = ("_class_name", "model_type", "architectures")
SECTIONS = (("vision_config",), ("vq_config",), ("image_codebook_config",), ("model", "vq_model"))
COSINE_KEYS = ("using_znorm", "cosine", "codebook_l2_norm", "use_l2_norm")


def _up_to(most: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and 0 < value <= most


def _is_sides(value: object) -> bool:
    fits = _up_to(MOST_SIDE)
    return isinstance(value, list) and 0 < len(value) <= MOST_SCALES and all(map(fits, value))


def _ratio(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 1e-6 < abs(value) <= 1  # the published code takes less for none, and has no phi then


# For each setting the keys that may hold it, what its values must be, and that in words.
READ: dict[str, tuple[tuple[str, ...], Callable[[object], bool], str]] = {
    "image_size": (("image_size", "reso", "resolution"), _up_to(MOST_PIXELS), f"1 to {MOST_PIXELS}"),
    "norm_groups": (("norm_num_groups",), _up_to(MOST_GROUPS), f"1 to {MOST_GROUPS}"),
    "patch_nums": (
        ("patch_nums", "v_patch_nums"),
        _is_sides,
        f"1 to {MOST_SIDE}",
    ),
    "quant_resi": (("quant_resi",), _ratio, "a share of phi, above 0 and at most 1"),
    "normalised": (COSINE_KEYS, lambda flag: isinstance(flag, bool), "true or false"),
    "rule": (("rule",), VECTOR_RULES.__contains__, "l2, cosine or dot"),
}


@dataclass(frozen=True)
class Config:
    """The contents of config.json.

    Attributes:
        path: of the file, which may not exist.
        content: the JSON object; empty if there is no file or it can't be read.
        broken: why the file can't be read, "" if it can or isn't there.
    """

    path: Path
    content: Mapping[str, Any] = field(default_factory=dict)
    broken: str = ""

    @cached_property
    def classes(self) -> dict[str, str]:
        """The model classes that it names, each with its key."""
        found = {}
        for part in self._parts():
            for key in CLASS_KEYS:
                value = part.get(key)
                names = value if isinstance(value, list) else [value]
                found.update({name: key for name in names if isinstance(name, str) and name})
        return found

    @cached_property
    def _tokenizer(self) -> Mapping[str, Any]:
        """The part that describes the tokenizer."""
        parts = list(self._parts())
        return parts[-1] if parts else {}

    def _parts(self) -> Iterator[Mapping[str, Any]]:
        """Yield the whole, and the sections of a tokenizer inside a larger model."""
        yield self.content
        for keys in SECTIONS:
            part: Any = self.content
            for key in keys:
                part = part.get(key) if isinstance(part, Mapping) else None
            if isinstance(part, Mapping):
                yield part

    def find(self, *keys: str) -> tuple[str, Any]:
        """Return the first key that has a value in the tokenizer's section, and the value."""
        values = self._tokenizer
        return next(((key, values[key]) for key in keys if values.get(key) is not None), ("", None))

    def settings(self, decided: TokenizerSettings) -> TokenizerSettings:
        """Return the settings that it holds.

        Args:
            decided: settings that the caller has decided, which are not read.

        Raises:
            CheckpointError: a value is not of its kind.
        """
        found: dict[str, Any] = {}
        for name, (keys, fits, expected) in READ.items():
            key, value = self.find(*keys)
            if value is None or getattr(decided, name) is not None:
                continue
            if not fits(value):
                raise CheckpointError(f"{self.path}: {key} {value!r}, expected {expected}.")
            found[name] = tuple(value) if isinstance(value, list) else value
        return TokenizerSettings(**found)


def read_config(folder: Path) -> Config:
    """Read config.json in a checkpoint's folder; empty if there is none."""
    path = folder / FILE
    try:
        content = parse_json(read_bytes(path, CONFIG_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return Config(path)
    except OSError as error:
        return Config(path, broken=f"can't be read: {error.strerror}")
    except ValueError as error:
        return Config(path, broken=f"can't be read as JSON: {error}")
    if not isinstance(content, dict):
        return Config(path, broken=f"got {type(content).__name__}, expected a JSON object")
    return Config(path, content)
