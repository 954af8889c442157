"""Reading pickles without running them: globals are never imported or called.

The interpreter of the standard library, in Python, with every instruction replaced that looks up, calls
or changes something by name. A global is one of the caller's own functions, or nothing at all.
"""

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

from entropy_cli.tokenizers.checkpoints.stored import UnusableError

# A step is one instruction or one copied item, at most about 100 bytes and 1 us.
MOST_STEPS = 800_000  # for a small file
BYTES_PER_STEP = 64  # of a file, for each further step
MOST_EXPANDED = 2**22  # bytes by which a compressed pickle may be larger than its file
CALL_STEPS = 8
CHARACTERS_PER_STEP = 64  # that are copied
MOST_NESTED = 1000
MOST_CHARACTERS = 1000  # in the name of a global


@dataclass(frozen=True)
class Known:
    """A function of ours in place of a global; if it forwards it returns what to call, and with what."""

    function: Callable[..., Any]
    forwards: bool = False


@dataclass(frozen=True)
class Unknown:
    """A global that is not known, by name only."""

    name: str


class Placeholder(dict[str | int, Any]):
    """An object of the unknown class `kind`, "" without one: the mappings that it was made of."""

    def __init__(self, kind: str, parts: Iterable[object] = ()) -> None:
        super().__init__()
        self.kind = kind
        for part in parts:
            if isinstance(part, Mapping):
                self.update(part)


def _pairs(items: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str | int, Any]]:
    """Return the items keyed by text or integers: hashing a deep tuple overflows the stack."""
    return (
        (key, value)
        for key, value in items
        if isinstance(key, str) or (isinstance(key, int) and key.bit_length() <= 64)
    )


def _ordered(items: Iterable[tuple[Any, Any]] | Mapping[Any, Any] = ()) -> dict[str | int, Any]:
    return dict(_pairs(items.items() if isinstance(items, Mapping) else items))


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
} | {
    f"{module}.{name}": Known(lambda kind, *arguments: (kind, arguments), forwards=True)
    for module in ("copyreg", "copy_reg")
    for name in ("_reconstructor", "__newobj__", "__newobj_ex__")
}

ANY_SET: frozenset[object] = frozenset()  # in place of each: what sets hold is of no interest

# Any, as its stack is not in its published types.
INTERPRETER: Any = pickle._Unpickler


def _counted(instruction: Callable[[Any], None]) -> Callable[[Any], None]:
    """Let an instruction cost a step."""

    def run(unpickler: "InertUnpickler") -> None:
        unpickler.spend(1)
        instruction(unpickler)

    return run


class InertUnpickler(INTERPRETER):  # type: ignore[misc] # is Any
    """A reader of one pickle; call `load()`, which raises UnusableError if that takes too many steps.

    Attributes:
        classes: names of the globals that became placeholders.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code: _counted(instruction) for code, instruction in INTERPRETER.dispatch.items()
    }

    def __init__(
        self,
        source: BinaryIO,
        file_size: int,
        known: Mapping[str, object],
        refer: Callable[[Any], object] | None = None,
    ) -> None:
        """Use `known` for globals by dotted name, and `refer` to resolve persistent ids."""
        super().__init__(source, encoding="latin1")
        # A buffered reader makes room for as many bytes as are asked for.
        self._file_read = lambda size: source.read(min(size, file_size + MOST_EXPANDED))
        self.classes: set[str] = set()
        self._known, self._refer = {**STANDARD, **known}, refer
        self._steps = self._left = MOST_STEPS + file_size // BYTES_PER_STEP

    def spend(self, steps: int) -> None:
        """Count steps, and refuse to take more than a file of weights needs."""
        self._left -= steps
        if self._left < 0:
            raise UnusableError(
                f"its pickle takes more than {self._steps:,} steps to read, expected weights with their "
                "names and shapes. Save the state dict by itself."
            )

    def _copy(self, *values: object) -> None:
        """Count the steps of copying values, each down to its own items."""
        for value in values:
            if isinstance(value, Sized):
                is_text = isinstance(value, (str, bytes, bytearray))
                self.spend(len(value) // CHARACTERS_PER_STEP if is_text else len(value))

    def find_class(self, module: str, name: str) -> object:
        """Return a function of ours in place of a global, or its name."""
        self.spend(CALL_STEPS)
        if len(module) + len(name) > MOST_CHARACTERS:
            raise pickle.UnpicklingError("a global of a longer name than any has")
        dotted = f"{module}.{name}"
        if dotted in self._known:
            return self._known[dotted]
        shown = "".join(c if c.isprintable() else "?" for c in dotted)[:160]
        if dotted not in QUIET:
            self.classes.add(shown)
        return Unknown(shown)

    def persistent_load(self, reference: Any) -> object:  # noqa: ANN401
        """Resolve a persistent id."""
        self.spend(CALL_STEPS)
        if self._refer is None:
            raise pickle.UnpicklingError("refers to something outside")
        return self._refer(reference)

    def _make(self, kind: object, arguments: Any) -> Any:  # noqa: ANN401 - a pickle may hold anything
        """Call `kind` if it is a function of ours, else return a placeholder."""
        while True:
            if not isinstance(arguments, (tuple, list)):
                raise pickle.UnpicklingError("a call without a tuple of arguments")
            self.spend(CALL_STEPS)
            self._copy(arguments, *arguments)
            if not isinstance(kind, Known):
                return Placeholder(kind.name if isinstance(kind, Unknown) else "", arguments)
            if not kind.forwards:
                return kind.function(*arguments)
            kind, arguments = kind.function(*arguments)

    def _mark(self) -> None:
        if len(self.metastack) >= MOST_NESTED:
            raise pickle.UnpicklingError(f"nested more than {MOST_NESTED} deep")
        self.load_mark()

    def _global_and_call(self) -> None:
        module, name = (self.readline()[:-1].decode("utf-8") for _ in range(2))
        arguments = self.pop_mark()
        self.append(self._make(self.find_class(module, name), arguments))

    def _call_marked(self) -> None:
        kind, *arguments = self.pop_mark()
        self.append(self._make(kind, arguments))

    def _call(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._make(self.stack[-1], arguments)

    def _call_with_names(self) -> None:
        self.stack.pop()
        self._call()

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Placeholder):
            parts = state if isinstance(state, tuple) else (state,)
            self._copy(parts, *parts)
            for part in parts:
                if isinstance(part, Mapping):
                    target.update(part)

    def _extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is list:
            self.stack[-1].extend(values)

    def _update(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_pairs(_two_by_two(items)))

    def _dict(self) -> None:
        items = self.pop_mark()  # first: it replaces append
        self.append(dict(_pairs(_two_by_two(items))))

    def _frozenset(self) -> None:
        self.pop_mark()
        self.append(ANY_SET)

    def _bytearray(self) -> None:
        length = int.from_bytes(self.read(8), "little")
        self.append(self.read(length))  # without making room for what is not there

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("names a class by a number of its own")

    for _code, _function in (
        (pickle.MARK, _mark),
        (pickle.INST, _global_and_call),
        (pickle.OBJ, _call_marked),
        (pickle.REDUCE, _call),
        (pickle.NEWOBJ, _call),
        (pickle.NEWOBJ_EX, _call_with_names),
        (pickle.BUILD, _build),
        (pickle.APPEND, lambda self: self._extend([self.stack.pop()])),
        (pickle.APPENDS, lambda self: self._extend(self.pop_mark())),
        (pickle.SETITEM, lambda self: self._update([self.stack.pop(), self.stack.pop()][::-1])),
        (pickle.SETITEMS, lambda self: self._update(self.pop_mark())),
        (pickle.DICT, _dict),
        (pickle.ADDITEMS, lambda self: self.pop_mark()),
        (pickle.FROZENSET, _frozenset),
        (pickle.EMPTY_SET, lambda self: self.append(ANY_SET)),
        (pickle.BYTEARRAY8, _bytearray),
        (pickle.EXT1, _refuse),
        (pickle.EXT2, _refuse),
        (pickle.EXT4, _refuse),
    ):
        dispatch[_code[0]] = _counted(_function)


def _two_by_two(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(items[::2], items[1::2], strict=True)
