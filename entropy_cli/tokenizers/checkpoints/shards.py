"""The files of a checkpoint: one file, shards with an index, or a model folder."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from entropy_cli.core.errors import CheckpointError
from entropy_cli.core.reading import CONFIG_BYTES, JSON_BYTES, parse_json, read_bytes
from entropy_cli.tokenizers.checkpoints.states import some
from entropy_cli.tokenizers.checkpoints.stored import Stored

INDEX = ".index.json"
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")
# What a model's folder holds, the first of these that is there.
USUAL = (
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
    "model.bin",
    "consolidated.pth",  # beside the optimizer, of FSDP
)
SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}
EXPECTED = "Give a .pth, .pt, .ckpt, .bin or .safetensors file, or an .index.json."


@dataclass(frozen=True)
class Located:
    """The files that hold one model in order of name, their folder, and the path that was given.

    The index is the file of each tensor by name; None if there is one file only, without an index.
    """

    path: Path
    files: tuple[Path, ...]
    folder: Path
    index: Mapping[str, Path] | None = None

    def merged(self, values: Mapping[Path, Any]) -> Any:  # noqa: ANN401 - files may hold anything
        """Merge the contents of the files; raise CheckpointError if one lacks what the index says."""
        if self.index is None:
            return values[self.files[0]]
        merged = {}
        for name, file in self.index.items():
            held = values[file].get(name) if isinstance(values[file], Mapping) else None
            if not isinstance(held, Stored):
                raise CheckpointError(
                    f"{self.path}: {file.name} lacks {name}, which the index says it has. "
                    "Download both again."
                )
            merged[name] = held
        return merged


def locate(path: Path) -> Located:
    """Find the files of a checkpoint.

    Raises:
        CheckpointError: there are none, or it is not clear which, or an index can't be used.
    """
    if path.is_dir():
        return _in_folder(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file. Give a checkpoint.")
    if not path.is_file():
        raise CheckpointError(f"{path}: is not a file or folder. {EXPECTED}")
    if path.name.endswith(INDEX):
        return _indexed(path, path)
    shard = SHARD.fullmatch(path.name)
    if shard:
        index = path.with_name(f"{shard[1]}{shard[2]}{INDEX}")
        if index.is_file():
            return _indexed(path, index)
    return Located(path, (path,), path.parent)


def _in_folder(folder: Path) -> Located:
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"{folder}: can't be read: {error.strerror}") from error
    if "model_index.json" in names:
        parts = [name for name in names if _is_tokenizer(folder / name)]
        hint = f"Give {' or '.join(str(folder / part) for part in parts)}." if parts else EXPECTED
        raise CheckpointError(f"{folder}: is a whole pipeline, expected its tokenizer alone. {hint}")
    indices = [name for name in names if name.endswith(INDEX)]
    preferred = [name for name in indices if ".safetensors." in name]
    usual = [name for name in USUAL if name in names]
    any_name = [name for name in names if PurePath(name).suffix in SUFFIXES]
    for found in (indices, preferred, usual[:1], any_name):
        if len(found) == 1:
            file = folder / found[0]
            return _indexed(folder, file) if found[0] in indices else Located(folder, (file,), folder)
    got = some(any_name or names) or "nothing"
    raise CheckpointError(f"{folder}: holds {got}, expected one checkpoint. {EXPECTED}")


def files_to_fetch(sizes: Mapping[str, int], path: str) -> list[str]:
    """Choose the files of a checkpoint elsewhere, and the JSON files that are read beside it.

    Args:
        sizes: the bytes of all files there by path, with / between folders.
        path: of a file or a folder, "" for the whole.

    Returns:
        The file that was asked for last; empty if there is no checkpoint.
    """
    folder = path.rpartition("/")[0] if path in sizes else path
    prefix = f"{folder}/" if folder else ""
    names = sorted(name.removeprefix(prefix) for name in sizes if name.startswith(prefix))
    here = [name for name in names if "/" not in name]
    beside = [name for name in here if name.endswith(".json") and sizes[prefix + name] <= JSON_BYTES]
    if path in sizes:
        name = path.removeprefix(prefix)
        stem = name.removesuffix(INDEX) if name.endswith(INDEX) else ""
        if shard := SHARD.fullmatch(name):
            stem = f"{shard[1]}{shard[2]}"
        chosen = _shards(here, stem) if stem else []
        return [prefix + each for each in dict.fromkeys([*beside, *chosen]) if each != name] + [path]
    if "model_index.json" in here:  # a pipeline, whose parts say what they are
        return [prefix + name for name in names if name.endswith(".json") and name.count("/") < 2]
    indices = [name for name in here if name.endswith(INDEX)]
    preferred = [name for name in indices if ".safetensors." in name] or indices
    usual = [name for name in USUAL if name in here]
    if preferred:
        weights = _shards(here, preferred[0].removesuffix(INDEX))
    else:
        weights = usual[:1] or [name for name in here if PurePath(name).suffix in SUFFIXES]
    others = [name for name in beside if not name.endswith(INDEX)]
    return [prefix + name for name in dict.fromkeys([*others, *weights])] if weights else []


def _shards(names: Sequence[str], stem: str) -> list[str]:
    """Return the index of shards of this stem, such as model.safetensors, and the shards."""
    parts = [(name, SHARD.fullmatch(name)) for name in names]
    found = [name for name, part in parts if part and f"{part[1]}{part[2]}" == stem]
    return [*(name for name in names if name == stem + INDEX), *found]


def _is_tokenizer(part: Path) -> bool:
    try:
        return b"VQModel" in read_bytes(part / "config.json", CONFIG_BYTES)
    except OSError:
        return False


def _indexed(path: Path, index: Path) -> Located:
    try:
        content = parse_json(read_bytes(index, JSON_BYTES))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{index}: can't be read as JSON: {error}. Download it again.") from error
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(n, str) for n in names.values()):
        raise CheckpointError(f"{index}: got no weight_map, expected names of tensors with their files.")
    for name in sorted(set(names.values())):
        if {"..", ""} & {name, *PureWindowsPath(name).parts} or PureWindowsPath(name).anchor:
            raise CheckpointError(
                f"{index}: names {name!r}, expected files in its own folder. Download it again."
            )
        if not (index.parent / name).is_file():
            raise CheckpointError(
                f"{index}: {name} is missing, one of {len(set(names.values()))} shards. "
                "Put it beside the index."
            )
    files = {name: index.parent / name for name in names.values()}
    return Located(
        path,
        tuple(files[name] for name in sorted(files)),
        index.parent,
        {k: files[v] for k, v in names.items()},
    )
