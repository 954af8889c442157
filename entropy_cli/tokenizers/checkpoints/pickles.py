"""Reading pickles without running them: globals are never imported or called.

The interpreter of the standard library, in Python, with every instruction replaced that looks up, calls
or changes something by name. A global is one of the caller's own functions, or nothing at all.
"""

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol


class Source(Protocol):
    """The file interface that a pickle is read from."""

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes."""
        ...

    def readline(self) -> bytes:
        """Read up to the end of a line."""
        ...


@dataclass(frozen=True)
class Known:
    """A function of ours in place of a global."""

    function: Callable[..., Any]


@dataclass(frozen=True)
class Unknown:
    """A global that is not known, by name only."""

    name: str


class Placeholder(dict[str | int, Any]):
    """A placeholder for an object of an unknown class, with the mappings it was made of.

    Attributes:
        kind: dotted name of the class, "" if it has none.
    """

    def __init__(self, kind: str, parts: Iterable[object] = ()) -> None:
        super().__init__()
        self.kind = kind
        for part in parts:
            if isinstance(part, Mapping):
                self.update(part)


def make(kind: object, arguments: Iterable[Any]) -> Any:  # noqa: ANN401 - a pickle may hold anything
    """Call `kind` if it is a function of ours, else return a placeholder."""
    if isinstance(kind, Known):
        return kind.function(*arguments)
    return Placeholder(kind.name if isinstance(kind, Unknown) else "", arguments)


def reconstruct(kind: object, *arguments: Any) -> Any:  # noqa: ANN401
    """Replace the functions of copyreg, which take the class as their first argument."""
    return make(kind, arguments)


def _ordered(items: Iterable[tuple[Any, Any]] | Mapping[Any, Any] = ()) -> dict[str | int, Any]:
    return dict(_pairs(items.items() if isinstance(items, Mapping) else items))


def _pairs(items: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str | int, Any]]:
    """Return the items keyed by text or integers: hashing a deep tuple overflows the stack."""
    return ((key, value) for key, value in items if isinstance(key, (str, int)))


# Classes without weights, which are not listed.
BUILTINS = "set frozenset bytearray complex slice range object int float str list dict tuple"
QUIET = {
    f"{module}.{name}"
    for module, names in {
        "argparse": "Namespace",
        "collections": "defaultdict Counter deque",
        "builtins": BUILTINS,
        "__builtin__": BUILTINS,
        "torch": "device Tensor",
        "torch.nn": "Parameter",
        "torch.nn.parameter": "Parameter Buffer",
        "torch.serialization": "_get_layout",
    }.items()
    for name in names.split()
}
STANDARD = {
    "collections.OrderedDict": Known(_ordered),
    "_codecs.encode": Known(lambda text, _codec="": text.encode("latin1")),  # how bytes are written
    **dict.fromkeys(
        [
            f"{module}.{name}"
            for module in ("copyreg", "copy_reg")
            for name in ("_reconstructor", "__newobj__", "__newobj_ex__")
        ],
        Known(reconstruct),
    ),
}


# Any, as its stack is not in its published types.
INTERPRETER: Any = pickle._Unpickler


class InertUnpickler(INTERPRETER):  # type: ignore[misc] # is Any
    """A reader of one pickle; call `load()`.

    Attributes:
        classes: names of the globals that became placeholders.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(INTERPRETER.dispatch)

    def __init__(
        self, source: Source, known: Mapping[str, object], refer: Callable[[Any], object] | None = None
    ) -> None:
        """Use `known` for globals by dotted name, and `refer` to resolve persistent ids."""
        super().__init__(source, encoding="latin1")
        self.classes: set[str] = set()
        self._known, self._refer = {**STANDARD, **known}, refer

    def find_class(self, module: str, name: str) -> object:
        """Return a function of ours in place of a global, or its name."""
        dotted = f"{module}.{name}"
        if dotted in self._known:
            return self._known[dotted]
        shown = "".join(c if c.isprintable() else "?" for c in dotted)[:160]
        if dotted not in QUIET:
            self.classes.add(shown)
        return Unknown(shown)

    def persistent_load(self, reference: Any) -> object:  # noqa: ANN401
        """Resolve a persistent id."""
        if self._refer is None:
            raise pickle.UnpicklingError("refers to something outside")
        return self._refer(reference)

    def _global_and_call(self) -> None:
        module, name = (self.readline()[:-1].decode("utf-8") for _ in range(2))
        arguments = self.pop_mark()
        self.append(make(self.find_class(module, name), arguments))

    def _call_marked(self) -> None:
        kind, *arguments = self.pop_mark()
        self.append(make(kind, arguments))

    def _call(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = make(self.stack[-1], arguments)

    def _call_with_names(self) -> None:
        self.stack.pop()
        self._call()

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Placeholder):
            for part in state if isinstance(state, tuple) else (state,):
                if isinstance(part, Mapping):
                    target.update(part)

    def _append(self) -> None:
        self._extend([self.stack.pop()])

    def _append_marked(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is list:
            self.stack[-1].extend(values)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _set_marked(self) -> None:
        self._set(self.pop_mark())

    def _set(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_pairs(_two_by_two(items)))

    def _dict(self) -> None:
        items = self.pop_mark()  # first: it replaces append
        self.append(dict(_pairs(_two_by_two(items))))

    def _add_marked(self) -> None:
        self.pop_mark()  # what sets hold is of no interest

    def _frozenset(self) -> None:
        self.pop_mark()
        self.append(frozenset())

    def _bytearray(self) -> None:
        length = int.from_bytes(self.read(8), "little")
        self.append(self.read(length))  # without making room for what is not there

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("names a class by a number of its own")

    for _code, _function in (
        (pickle.INST, _global_and_call),
        (pickle.OBJ, _call_marked),
        (pickle.REDUCE, _call),
        (pickle.NEWOBJ, _call),
        (pickle.NEWOBJ_EX, _call_with_names),
        (pickle.BUILD, _build),
        (pickle.APPEND, _append),
        (pickle.APPENDS, _append_marked),
        (pickle.SETITEM, _set_item),
        (pickle.SETITEMS, _set_marked),
        (pickle.DICT, _dict),
        (pickle.ADDITEMS, _add_marked),
        (pickle.FROZENSET, _frozenset),
        (pickle.BYTEARRAY8, _bytearray),
        (pickle.EXT1, _refuse),
        (pickle.EXT2, _refuse),
        (pickle.EXT4, _refuse),
    ):
        dispatch[_code[0]] = _function


def _two_by_two(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(items[::2], items[1::2], strict=True)
