"""Which of the mappings in a checkpoint is the tokenizer: wrapper, prefix, and averaged (EMA) copies."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from entropy_cli.tokenizers.pickles import Placeholder
from entropy_cli.tokenizers.settings import Weights
from entropy_cli.tokenizers.stored import Stored, UnusableError

# Where a state dict lies inside a training checkpoint, in the order to try; "" is the file itself.
WRAPPERS = (
    "",
    "trainer.vae_local",  # VAR
    "trainer.vae_wo_ddp",  # vaex
    "trainer.vae_ema",
    "state_dict",  # lightning
    "state_dict_ema",  # RQ-VAE
    "model",  # LlamaGen
    "vae",  # Infinity
    "ema",
    "model_state_dict",
    "model_ema_state_dict",  # FlowMo
)
# Every convolutional encoder has the first or second of these, TiTok's has the third.
ANCHORS = (
    "encoder.conv_in.weight",
    "encoder.conv_in.conv.weight",
    "encoder.latent_token_positional_embedding",
)
# Of several prefixes these are preferred.
PREFIXES = (
    "",
    "module.",
    "_orig_mod.",
    "first_stage_model.",
    "gen_vision_model.",
    "model.vqmodel.",
    "vqmodel.",
    "vae.",
    "vq_model.",
    "generator.",
)
PARALLEL = ("module.", "_orig_mod.")  # what wrapping a module adds to all its names
AVERAGED = "model_ema."  # lightning's: the rest of a name is without its dots
MODULE_PARTS = {"_modules", "_parameters", "_buffers"}


@dataclass(frozen=True)
class Copy:
    """One copy of a tokenizer's weights.

    Attributes:
        wrapper: where its state dict is, "" for the file itself.
        prefix: what was taken off all names.
        tensors: by name.
        ignored: what else there is, for people.
        twins: the name in the file of each tensor here that was taken from a second set in the same
            state dict.
    """

    wrapper: str
    prefix: str
    tensors: Mapping[str, Stored]
    ignored: tuple[str, ...]
    twins: Mapping[str, str] = field(default_factory=dict)


def choose(content: Any) -> dict[Weights, Copy]:  # noqa: ANN401 - a file may hold anything
    """The copies of a tokenizer's weights in what a file holds.

    Raises:
        UnusableError: there are no tensors by name.
    """
    found = {path: mapping for path, mapping in _mappings(content) if _tensors(mapping)}
    if not found:
        _refuse(content)

    def best(*, averaged: bool) -> str | None:
        paths = [path for path in found if is_averaged(path) == averaged]
        return max(paths, key=lambda path: _rank(path, _tensors(found[path])), default=None)

    raw, ema = best(averaged=False), best(averaged=True)
    if raw is not None and ema is not None:
        levels = [_rank(path, _tensors(found[path]))[0] for path in (raw, ema)]
        raw, ema = raw if levels[0] >= levels[1] else None, ema if levels[1] >= levels[0] else None
    copies: dict[Weights, Copy] = {}
    if ema is not None:
        copies["ema"] = _copies(content, ema, found[ema], twin=raw)["ema"]
    if raw is not None:
        copies = _copies(content, raw, found[raw], twin=ema) | copies
    return copies


def is_averaged(path: str) -> bool:
    """Whether a wrapper or prefix is named as an averaged copy."""
    return "ema" in re.split(r"[._]", path.lower())


def some(names: Collection[str], most: int = 6) -> str:
    """A few of the names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(list(names)[:most]) + more


def _mappings(content: Any, path: str = "", depth: int = 2) -> Iterator[tuple[str, Mapping[Any, Any]]]:  # noqa: ANN401
    """A mapping and those inside it, by their keys with dots between; not a pickled module's parts."""
    if isinstance(content, Mapping):
        yield path, content
        for key, value in content.items() if depth else ():
            if isinstance(key, str) and key and key.isprintable() and key not in MODULE_PARTS:
                yield from _mappings(value, _joined(path, key), depth - 1)


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _tensors(mapping: Mapping[Any, Any]) -> dict[str, Stored]:
    return {
        key: value
        for key, value in mapping.items()
        if isinstance(value, Stored) and isinstance(key, str) and key and key.isprintable()
    }


def _rank(path: str, tensors: Mapping[str, Stored]) -> tuple[int, int, int]:
    """How much a mapping looks like the tokenizer: by its names, by where it is, by its size."""
    anchored = bool(_prefixes(tensors))
    known = path in WRAPPERS and (anchored or bool(path))
    order = -WRAPPERS.index(path) if known else -len(WRAPPERS)
    return 2 * anchored + (known and not anchored), order, len(tensors)


def _refuse(content: Any) -> None:  # noqa: ANN401
    for _, mapping in _mappings(content):
        if isinstance(mapping, Placeholder) and mapping.keys() & MODULE_PARTS:
            raise UnusableError(
                f"is a pickled model of class {mapping.kind}, not a state dict. Save model.state_dict()."
            )
    keys = [str(key) for key in content] if isinstance(content, Mapping) else []
    got = f"a dict with keys {some([key for key in keys if key.isprintable()])}" if keys else "no dict"
    raise UnusableError(f"holds no tensors by name: got {got}, expected a state dict.")


def _copies(
    content: Mapping[Any, Any], wrapper: str, mapping: Mapping[Any, Any], twin: str | None
) -> dict[Weights, Copy]:
    """The copies in one state dict: one, or a second that is kept beside it under other names."""
    tensors = _tensors(mapping)
    prefix, others = _prefix(tensors)
    averages = tuple(
        {f"{prefix}{AVERAGED}", AVERAGED, *(p for p in others if _belongs(p, prefix))} - {prefix}
    )
    own = {
        name.removeprefix(prefix): stored
        for name, stored in tensors.items()
        if name.startswith(prefix) and not name.startswith(averages)
    }
    twins = {name: full for name in own if (full := _twin(name, prefix, averages, tensors))}
    ignored = [*_beside(content, wrapper, twin), *_no_tensors(mapping, wrapper)]
    if unused := [other for other in others if other not in averages]:
        ignored.append(f"{some(unused)} (the same layout again)")
    averaged = {name for name in tensors if name.startswith(averages)}
    if bookkeeping := sorted(averaged - set(twins.values())):
        ignored.append(some(bookkeeping))
    if outside := len(tensors) - len(own) - len(averaged):
        ignored.append(f"{outside:,} tensors outside {prefix}")
    if is_averaged(wrapper) or is_averaged(prefix):
        return {"ema": Copy(wrapper, prefix, own, tuple(ignored))}
    copies: dict[Weights, Copy] = {"raw": Copy(wrapper, prefix, own, tuple(ignored))}
    if twins:
        replaced = own | {name: tensors[full] for name, full in twins.items()}
        copies["ema"] = Copy(wrapper, prefix, replaced, tuple(ignored), twins)
    return copies


def _beside(content: Mapping[Any, Any], wrapper: str, twin: str | None) -> list[str]:
    """What lies beside each step of the way to a state dict, but for its averaged or raw twin."""
    names: list[str] = []
    level, path = content, ""
    while path != wrapper:
        inside = {
            _joined(path, k): v for k, v in level.items() if isinstance(k, str) and k.isprintable()
        }
        step = next(
            p for p in inside if f"{wrapper}.".startswith(f"{p}.") and isinstance(inside[p], Mapping)
        )
        names += [p for p in inside if p not in (step, twin)]
        level, path = inside[step], step
    return [some(names)] if names else []


def _no_tensors(mapping: Mapping[Any, Any], wrapper: str) -> list[str]:
    names = [k for k, v in mapping.items() if isinstance(k, str) and not isinstance(v, Stored)]
    names = [name for name in names if name.isprintable()]
    where = f" in {wrapper}" if wrapper else ""
    return [f"{some(names)}{where} (no tensors)"] if names else []


def _belongs(average: str, prefix: str) -> bool:
    """Whether a prefix is named as the averaged twin of another: `ema.`, `vae_ema.` of `vae.`."""
    words, own = (set(re.split(r"[._]", text)) - {"", "ema", "model"} for text in (average, prefix))
    return is_averaged(average) and words in (set(), own)


def _twin(name: str, prefix: str, averages: Iterable[str], tensors: Mapping[str, Stored]) -> str | None:
    """The name of a tensor's averaged twin, if there is one."""
    dotless = name.replace(".", "")
    candidates = [f"{prefix}{AVERAGED}{dotless}", f"{AVERAGED}{prefix.replace('.', '')}{dotless}"]
    candidates += [f"{average}{name}" for average in averages]
    return next((candidate for candidate in candidates if candidate in tensors), None)


def _prefix(tensors: Mapping[str, Stored]) -> tuple[str, list[str]]:
    """What stands before all names of the tokenizer, and before those of others of its layout."""
    prefixes = _prefixes(tensors)
    if not prefixes:
        prefix = ""
        while more := next((p for p in PARALLEL if all(n.startswith(prefix + p) for n in tensors)), ""):
            prefix += more
        return prefix, []
    chosen = min(prefixes, key=lambda p: (is_averaged(p), p not in PREFIXES, len(p), p))
    return chosen, sorted(prefixes - {chosen})


def _prefixes(tensors: Mapping[str, Stored]) -> set[str]:
    """Everything that stands before an anchor."""
    found = set()
    for name in tensors:
        for anchor in ANCHORS:
            prefix = name.removesuffix(anchor)
            if prefix != name and (not prefix or prefix.endswith(".")):
                found.add(prefix)
    return found
