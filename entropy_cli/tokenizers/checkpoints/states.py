"""Finding a model among a checkpoint's mappings: wrapper, prefix, and EMA copies."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from entropy_cli.tokenizers.checkpoints.modules import unpacked
from entropy_cli.tokenizers.checkpoints.stored import Stored, UnusableError
from entropy_cli.tokenizers.settings import Weights

PARALLEL = ("module.", "_orig_mod.")  # what wrapping a module adds to all its names


@dataclass(frozen=True)
class Kind:
    """A kind of model to look for in a file, by the names of its weights.

    Attributes:
        noun: what to call one.
        anchors: ends of names, of which each model of the kind has one.
        wrappers: where a state dict lies inside a training checkpoint, in the order to try; "" is the
            file itself.
        prefixes: of several prefixes of names these are preferred.
        trained: names of weights that are trained, and so averaged.
    """

    noun: str
    anchors: tuple[str, ...]
    wrappers: tuple[str, ...]
    prefixes: tuple[str, ...]
    trained: re.Pattern[str]


TOKENIZER = Kind(
    noun="tokenizer",
    # Most convolutional encoders have the first or second of these, TiTok's has the third.
    anchors=(
        "encoder.conv_in.weight",
        "encoder.conv_in.conv.weight",
        "encoder.latent_token_positional_embedding",
        "blocks.output.conv.w",  # DALL-E's
        "blocks.output.conv.weight",  # FLAVA's
        "encode_task_layer.0.weight",  # BEiT v2's
    ),
    wrappers=(
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
    ),
    prefixes=(
        "",
        *PARALLEL,
        "first_stage_model.",
        "gen_vision_model.",
        "model.vqmodel.",
        "vqmodel.",
        "vae.",
        "vq_model.",
        "generator.",
    ),
    # But codes that training averages itself.
    trained=re.compile(
        r"(encoder|quant_conv)\.(?!.*num_batches_tracked).*|quantizer?\..*\.(weight|bias)|latent_tokens"
    ),
)
AVERAGED = "model_ema."  # lightning's: the rest of a name is without its dots
MODULE_PARTS = {"_modules", "_parameters", "_buffers"}
MOST_CHARACTERS = 500  # in a name
MOST_MODELS = 32  # in a state dict: each name is compared with all their prefixes


@dataclass(frozen=True)
class Copy:
    """One copy of a model's weights.

    Attributes:
        wrapper, prefix: where its state dict is, "" for the file itself; what was taken off all names.
        tensors, ignored: by name; what else there is, for people.
        twins: the name in the file of each tensor here that was taken from a second set in the same
            state dict.
        outside: names of all other tensors, which show what else the file is.
        kind: of the model.
        arguments: numbers and texts of the training's arguments, `args` at the top of the file.
    """

    wrapper: str
    prefix: str
    tensors: Mapping[str, Stored]
    ignored: tuple[str, ...]
    twins: Mapping[str, str] = field(default_factory=dict)
    outside: tuple[str, ...] = ()
    kind: Kind = TOKENIZER
    arguments: Mapping[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Place:
    """A mapping in a file, by the keys that lead to it with dots between."""

    path: str
    mapping: Mapping[Any, Any]
    outer: "_Place | None" = None

    def tensors(self) -> dict[str, Stored]:
        named = {name: self.mapping[name] for name in _names(self.mapping)}
        return {name: value for name, value in named.items() if isinstance(value, Stored)}

    def inside(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def rank(self, kind: Kind) -> tuple[int, int, int]:
        """Rank it as a model of a kind: by its names, its location and its size."""
        tensors = self.tensors()
        anchored = bool(_prefixes(tensors, kind))
        known = self.path in kind.wrappers and (anchored or bool(self.path))
        order = -kind.wrappers.index(self.path) if known else -len(kind.wrappers)
        return 2 * anchored + (known and not anchored), order, len(tensors)


def choose(
    content: Any,  # noqa: ANN401 - a file may hold anything
    kind: Kind = TOKENIZER,
) -> dict[Weights, Copy]:
    """Find the copies of a model's weights in a file's contents; UnusableError without tensors."""
    places = list(_places(unpacked(content)))
    found = [place for place in places if place.tensors()]
    if not found:
        _refuse(content)
    ranks = {place.path: place.rank(kind) for place in found}

    def best(*, averaged: bool) -> _Place | None:
        among = [place for place in found if is_averaged(place.path) == averaged]
        return max(among, key=lambda place: ranks[place.path], default=None)

    raw, ema = best(averaged=False), best(averaged=True)
    if raw and ema:
        # A copy is of the same kind; what looks less like the model is something else.
        levels = ranks[raw.path][0], ranks[ema.path][0]
        raw, ema = raw if levels[0] >= levels[1] else None, ema if levels[1] >= levels[0] else None
    copies = _copies(raw, kind, twin=ema) if raw else {}
    copies |= _copies(ema, kind, twin=raw) if ema else {}
    others = [name for place in found if place not in (raw, ema) for name in place.tensors()]
    arguments = _arguments(content)
    return {
        name: replace(copy, outside=(*copy.outside, *others), kind=kind, arguments=arguments)
        for name, copy in copies.items()
    }


def _arguments(content: Mapping[Any, Any]) -> dict[str, int | float | str]:
    args = content.get("args")
    named = {name: args[name] for name in _names(args)} if isinstance(args, Mapping) else {}
    return {name: value for name, value in named.items() if isinstance(value, int | float | str)}


def is_averaged(path: str) -> bool:
    """Return whether a wrapper or prefix is named as an averaged copy."""
    return "ema" in re.split(r"[._]", path.lower())


def some(names: Collection[str], most: int = 6) -> str:
    """List the first names, and the number of the others."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(list(names)[:most]) + more


def _places(content: Any) -> Iterator[_Place]:  # noqa: ANN401
    """Yield a mapping and those up to two levels inside it, once each; not parts of pickled modules."""
    level, seen = [_Place("", content)] if isinstance(content, Mapping) else [], {id(content)}
    for _ in range(3):
        yield from level
        inside = []
        for place in level:
            for name in _names(place.mapping):
                inner = place.mapping[name]
                is_new = isinstance(inner, Mapping) and bool(inner) and id(inner) not in seen
                if is_new and name not in MODULE_PARTS:
                    seen.add(id(inner))
                    inside.append(_Place(place.inside(name), inner, place))
        level = inside


def _names(mapping: Mapping[Any, Any]) -> list[str]:
    """Return the keys that are printable names."""
    texts = (key for key in mapping if isinstance(key, str) and 0 < len(key) <= MOST_CHARACTERS)
    return [key for key in texts if key.isprintable()]


def _refuse(content: object) -> None:
    got = f"a dict with keys {some(_names(content))}" if isinstance(content, Mapping) else "no dict"
    raise UnusableError(f"holds no tensors by name: got {got}, expected a state dict.")


def _copies(place: _Place, kind: Kind, twin: _Place | None) -> dict[Weights, Copy]:
    """Find the copies in one state dict: one, or a second under other names."""
    tensors = place.tensors()
    prefix, others = _prefix(tensors, kind)
    averages = tuple(
        {f"{prefix}{AVERAGED}", AVERAGED, *(p for p in others if _belongs(p, prefix))} - {prefix}
    )
    own = {
        name.removeprefix(prefix): stored
        for name, stored in tensors.items()
        if name.startswith(prefix) and not name.startswith(averages)
    }
    twins = {name: full for name in own if (full := _twin(name, prefix, averages, tensors))}
    ignored = _beside(place, twin)
    if unused := [other for other in others if other not in averages]:
        ignored.append(f"{some(unused)} (the same layout again)")
    averaged = {name for name in tensors if name.startswith(averages)}
    if bookkeeping := sorted(averaged - set(twins.values())):
        ignored.append(some(bookkeeping))
    if outside := len(tensors) - len(own) - len(averaged):
        ignored.append(f"{outside:,} tensors outside {prefix}")
    other = (name for name in tensors if not name.startswith(prefix))
    copy = Copy(place.path, prefix, own, tuple(ignored), outside=tuple(other))
    if is_averaged(place.path) or is_averaged(prefix):
        return {"ema": copy}
    averages_of = own | {name: tensors[full] for name, full in twins.items()}
    copies: dict[Weights, Copy] = {"raw": copy}
    return copies | ({"ema": replace(copy, tensors=averages_of, twins=twins)} if twins else {})


def _beside(place: _Place, twin: _Place | None) -> list[str]:
    """List the contents beside a state dict and in it, except its other copy."""
    known = {place.path, twin and twin.path}
    names = [name for name in _names(place.mapping) if not isinstance(place.mapping[name], Stored)]
    names = [name for name in names if place.inside(name) not in known]
    where = f" in {place.path}" if place.path else ""
    said = [f"{some(names)}{where} (no tensors)"] if names else []
    beside: list[str] = []
    while place.outer:
        place, inner = place.outer, place.path
        paths = map(place.inside, _names(place.mapping))
        beside = [path for path in paths if path not in {inner, *known}] + beside
    return ([some(beside)] if beside else []) + said


def _belongs(average: str, prefix: str) -> bool:
    """Return whether a prefix names the averaged copy of another: `ema.`, `vae_ema.` of `vae.`."""
    words, own = (set(re.split(r"[._]", text)) - {"", "ema", "model"} for text in (average, prefix))
    return is_averaged(average) and words in (set(), own)


def _twin(name: str, prefix: str, averages: Iterable[str], tensors: Mapping[str, Stored]) -> str | None:
    """Return the name of a tensor's averaged copy, None without one."""
    dotless = name.replace(".", "")
    candidates = [f"{prefix}{AVERAGED}{dotless}", f"{AVERAGED}{prefix.replace('.', '')}{dotless}"]
    candidates += [f"{average}{name}" for average in averages]
    return next((candidate for candidate in candidates if candidate in tensors), None)


def _prefix(tensors: Mapping[str, Stored], kind: Kind) -> tuple[str, list[str]]:
    """Find the prefix of the model's names, and those of others of its layout."""
    prefixes = _prefixes(tensors, kind)
    if not prefixes:
        prefix = ""
        while more := next((p for p in PARALLEL if all(n.startswith(prefix + p) for n in tensors)), ""):
            prefix += more
        return prefix, []
    strange = [p for p in sorted(prefixes) if p not in kind.prefixes and not is_averaged(p)]
    if (len(strange) > 1 and not prefixes & set(kind.prefixes)) or len(prefixes) > MOST_MODELS:
        raise UnusableError(
            f"holds several {kind.noun}s, under {some(strange or sorted(prefixes))}: which is meant? "
            "Save it by itself."
        )
    chosen = min(prefixes, key=lambda p: (is_averaged(p), p not in kind.prefixes, len(p), p))
    return chosen, sorted(prefixes - {chosen})


def _prefixes(tensors: Mapping[str, Stored], kind: Kind) -> set[str]:
    """Return all prefixes of anchors."""
    anchored = (name.removesuffix(a) for a in kind.anchors for name in tensors if name.endswith(a))
    return {prefix for prefix in anchored if not prefix or prefix.endswith(".")}
