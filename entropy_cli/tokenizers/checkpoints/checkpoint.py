"""Open checkpoints: the only place that does, and it never runs what a file contains.

A tensor is read when it is needed, so a decoder is not loaded.
"""

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from entropy_cli.core.errors import CheckpointError
from entropy_cli.core.reading import OpenFile
from entropy_cli.tokenizers.checkpoints.config import Config, read_config
from entropy_cli.tokenizers.checkpoints.contents import first_line, hash_files, open_file, read_contents
from entropy_cli.tokenizers.checkpoints.shards import Located, locate
from entropy_cli.tokenizers.checkpoints.states import TOKENIZER, Copy, Kind, choose
from entropy_cli.tokenizers.checkpoints.stored import FileFormat, Stored, UnusableError
from entropy_cli.tokenizers.settings import Weights

RANKED: tuple[Weights, ...] = ("raw", "ema")


class Checkpoint:
    """A checkpoint of one file or several: names and shapes, and the tensors one at a time.

    Attributes:
        path: the file or folder that was given.
        files: the files that the tensors come from, in order of name.
        folder: where config.json lies, if there is one.
        wrapper: where in the file the state dict was found, "" for the top.
        prefix: what was taken off all names, "" if nothing.
        weights: which copy `tensor` gives, "raw" or "ema" (averaged over the training).
        copies: the copies that there are, the raw one first.
        shapes: shape of every tensor by name.
        dtypes: type of every tensor by name, as torch names it without "torch.".
        ignored: what else the file holds, for people.
        outside: names of all other tensors.
        arguments: numbers and texts of the training's arguments, where the file has them.
        forms: kinds of files they are, sorted.
        classes: names of what the file would have imported, sorted; it was not.
        size: bytes of all files.
    """

    def __init__(
        self,
        located: Located,
        copies: dict[Weights, Copy],
        weights: Weights,
        forms: tuple[FileFormat, ...] = (),
        classes: tuple[str, ...] = (),
        opened: tuple[OpenFile, ...] = (),
    ) -> None:
        chosen = copies[weights]
        self.path, self.files, self.folder = located.path, located.files, located.folder
        self.wrapper, self.prefix, self.ignored = chosen.wrapper, chosen.prefix, chosen.ignored
        self.outside, self.arguments = chosen.outside, chosen.arguments
        self.weights, self.forms, self.classes = weights, forms, classes
        self.copies: list[Weights] = [kind for kind in RANKED if kind in copies]
        self.shapes: Mapping[str, tuple[int, ...]] = {k: t.shape for k, t in chosen.tensors.items()}
        self.dtypes: Mapping[str, str] = {k: t.dtype for k, t in chosen.tensors.items()}
        self.size = sum(file.size for file in opened)
        self._located, self._copies, self._opened = located, copies, opened
        self._keep: Collection[str] | None = None

    @classmethod
    def of_tensors(cls, path: Path, tensors: Mapping[str, Tensor]) -> "Checkpoint":
        """Wrap tensors in memory, as if they came from a file of that name."""
        stored = {name: Stored.in_memory(tensor) for name, tensor in tensors.items()}
        return cls(Located(path, (), path.parent), {"raw": Copy("", "", stored, ())}, "raw")

    def to_meta(self, keep: Collection[str]) -> "Checkpoint":
        """Return a checkpoint of which only the weights to keep are read; others are on torch's meta."""
        checkpoint = self._with(self._copies, self.weights)
        checkpoint._keep = keep
        return checkpoint

    def _with(self, copies: dict[Weights, Copy], weights: Weights) -> "Checkpoint":
        return Checkpoint(self._located, copies, weights, self.forms, self.classes, self._opened)

    @cached_property
    def config(self) -> Config:
        """The config.json beside the checkpoint."""
        return read_config(self.folder)

    def with_weights(self, weights: Weights) -> "Checkpoint":
        """Return the other copy of the weights, of the same files.

        Raises:
            CheckpointError: there is none, or its shapes are not those of the raw copy.
        """
        if weights == self.weights:
            return self
        if weights not in self.copies:
            kind, other = ("EMA", "raw") if weights == "ema" else ("raw", "ema")
            raise CheckpointError(
                f"--weights {weights}: {self.path} holds no {kind} copy. Use --weights {other}."
            )
        if not self._copies:
            raise CheckpointError(f"{self.path}: was closed before its {weights} copy was read.")
        chosen = self._copies[weights]
        for name, full in chosen.twins.items():
            raw, twin = self._copies["raw"].tensors[name].shape, chosen.tensors[name].shape
            if raw != twin:
                raise CheckpointError(
                    f"{self.path}: {full} has shape {list(twin)}, expected {list(raw)} as "
                    f"{chosen.prefix}{name} has. Use --weights raw."
                )
        self._check_averages(chosen)
        return self._with(self._copies, weights)

    def _check_averages(self, chosen: Copy) -> None:
        """Check that an averaged copy beside the raw one is whole, not a mixture of both."""
        without = [
            name
            for name in chosen.tensors
            if chosen.twins
            and chosen.kind.trained.fullmatch(name)
            and name not in chosen.twins
            and f"{name.removesuffix('weight')}cluster_size" not in chosen.tensors
        ]
        if without:
            raise CheckpointError(
                f"{self.path}: {len(without)} of its weights have no EMA copy, {without[0]} for "
                "one, though others have. Use --weights raw."
            )

    def tensor(self, name: str) -> Tensor:
        """Read one weight, as float32; raise CheckpointError if it is no plain tensor of floats."""
        tensor = self._read(name, "floating-point numbers", lambda dtype: dtype.is_floating_point)
        return tensor.to(torch.float32).contiguous()

    def finite(self, name: str) -> Tensor:
        """Read one weight as `tensor` does; raise CheckpointError, too, if a number is not finite."""
        weight = self.tensor(name)
        if not weight.is_meta and not weight.isfinite().all():
            raise CheckpointError(
                f"{self.path}: {name} holds NaN or infinity, so every result would be NaN. Copy the "
                "checkpoint again, or train it again."
            )
        return weight

    def integers(self, name: str) -> Tensor:
        """Read one tensor, as int64; raise CheckpointError unless it holds integers that fit."""
        tensor = self._read(name, "integers", _is_integer)
        integers = tensor.to(torch.int64)
        if tensor.dtype == torch.uint64 and (integers < 0).any():  # of the numbers beyond int64's
            raise CheckpointError(
                f"{self.path}: {name} holds {integers.min().item() % 2**64}, which int64 does not."
            )
        return integers

    def numbers(self, name: str) -> Tensor:
        """Read one plain tensor of any type as it is; it may be shared and must not be changed."""
        return self._read(name, "numbers", lambda _: True)

    def _read(self, name: str, expected: str, fits: Callable[[torch.dtype], bool]) -> Tensor:
        stored = self._copies[self.weights].tensors.get(name) if self._copies else None
        if stored is None:
            reason = "there is no such tensor" if self._copies else "the checkpoint was closed"
            raise CheckpointError(f"{self.path}: can't read {name}: {reason}")
        if stored.kind == "plain":
            try:
                if self._keep is None or name in self._keep:
                    tensor = stored.read()
                else:
                    tensor = torch.empty(stored.shape, dtype=stored.torch_dtype, device="meta")
            except Exception as error:  # what readers raise on damaged files has no limit
                raise CheckpointError(f"{self.path}: can't read {name}: {first_line(error)}") from error
            if fits(tensor.dtype):
                return tensor
        raise CheckpointError(
            f"{self.path}: {name} is a {stored.kind} tensor of {stored.dtype}, expected plain "
            f"{expected}."
        )

    def close(self) -> None:
        """Forget the tensors; names and shapes remain, and the files are still open to be hashed."""
        self._copies.clear()  # shared with the views of other copies

    def sha256(self, progress: Callable[[int], object] = lambda _: None) -> str:
        """Hash the files that the weights were read from, in order of name; see `hash_files`."""
        return hash_files(self._opened, progress)


def open_checkpoint(path: Path, kind: Kind = TOKENIZER) -> Checkpoint:
    """Open one or several files of safetensors or torch.save; the content decides which.

    The result gives the raw copy of the weights if there is one, else the averaged one.

    Args:
        path: a file, one of several shards, their index, or a folder with one of those.
        kind: of the model that is looked for in it.

    Raises:
        CheckpointError: there is no such file, or it is not a checkpoint, or one that is damaged.
    """
    located = locate(path)
    opened = {path: open_file(path) for path in located.files}
    contents = {path: read_contents(file) for path, file in opened.items()}
    try:
        copies = choose(located.merged({file: held.value for file, held in contents.items()}), kind)
    except UnusableError as error:
        raise CheckpointError(f"{path}: {error}") from error
    classes = tuple(sorted({name for held in contents.values() for name in held.classes}))
    forms = tuple(sorted({held.file_format for held in contents.values()}))
    weights = next(kind for kind in RANKED if kind in copies)
    return Checkpoint(located, copies, weights, forms, classes, tuple(opened.values()))


def _is_integer(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
