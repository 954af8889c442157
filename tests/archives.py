"""Archives of every kind that hold the images of a folder, and the folder that each stands for."""

import io
import shutil
import tarfile
import zipfile
from pathlib import Path


def files_of(folder):
    """The files of a folder, sorted by path: relative path and path."""
    return [(p.relative_to(folder).as_posix(), p) for p in sorted(folder.rglob("*")) if p.is_file()]


def write_parquet(path, rows, group=4, **columns):
    """Rows of (name or None, bytes or None, label) as the hub stores images."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table(
        {
            "image": [{"bytes": content, "path": name} for name, content, _ in rows],
            "label": pyarrow.array([label for *_, label in rows], pyarrow.int64()),
            **columns,
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    return path


def write_zip(path, files, method=zipfile.ZIP_DEFLATED):
    """A zip of (name, path)."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, file in files:
            archive.write(file, name)
    return path


def write_tar(path, files, mode="w"):
    """A tar of (name, path)."""
    with tarfile.open(path, mode) as archive:
        for name, file in files:
            archive.add(file, name)
    return path


def in_parts(files, parts):
    """Every N-th file from the I-th."""
    return [files[i::parts] for i in range(parts)]


def parquet_files(files, out):
    for i, part in enumerate(in_parts(files, 3)):
        rows = [(name, path.read_bytes(), len(name) % 7) for name, path in part]
        write_parquet(out / f"data/all-{i:05d}-of-00003.parquet", rows)
    (out / "README.md").write_text("")
    return out, lambda i: f"data/all-{i % 3:05d}-of-00003.parquet"


def one_parquet(files, out):
    rows = [(name, path.read_bytes(), None) for name, path in files]
    return write_parquet(out / "x.parquet", rows, group=5), lambda _: "x.parquet"


def one_zip(files, out):
    return write_zip(out / "x.zip", files), lambda _: "x.zip"


def stored_zips(files, out):
    for i, part in enumerate(in_parts(files, 2)):
        write_zip(out / f"{i}.zip", part, zipfile.ZIP_STORED)
    return out, lambda i: f"{i % 2}.zip"


def folder_of_tars(files, out):
    for i, part in enumerate(in_parts(files, 2)):
        write_tar(out / f"{i}.tar", part)
    return out, lambda i: f"{i % 2}.tar"


def tar_of_tars(files, out):
    inner = [
        (f"n{i}.tar", write_tar(out / f"n{i}.tar", part)) for i, part in enumerate(in_parts(files, 3))
    ]
    whole = write_tar(out / "ILSVRC2012_img_train.tar", inner)
    for _, path in inner:
        path.unlink()
    return whole, lambda i: f"n{i % 3}.tar"


def compressed(suffix):
    def write(files, out):
        for i, part in enumerate(in_parts(files, 2)):
            whole = write_tar(out / "whole", part)
            (out / f"{i}.tar.{suffix}").write_bytes(compress(suffix, whole.read_bytes()))
            whole.unlink()
        return out, lambda i: f"{i % 2}.tar.{suffix}"

    return write


def compress(suffix, content):
    """Compress bytes with the program that a suffix stands for."""
    if suffix == "zst":
        import zstandard

        return zstandard.ZstdCompressor(write_checksum=True).compress(content)
    import bz2
    import gzip
    import lzma

    return {"gz": gzip, "bz2": bz2, "xz": lzma}[suffix].compress(content)


PLACES = {
    "parquet files": parquet_files,
    "one parquet": one_parquet,
    "one zip": one_zip,
    "stored zips": stored_zips,
    "folder of tars": folder_of_tars,
    "tar of tars": tar_of_tars,
    **{f"tar.{suffix}": compressed(suffix) for suffix in ("gz", "zst", "bz2", "xz")},
}


def make(kind, folder, tmp_path):
    """A place of a kind with the images of a folder, and a folder with the same images by its names."""
    out, same = Path(tmp_path / "place"), Path(tmp_path / "same")
    out.mkdir()
    files = files_of(folder)
    place, part = PLACES[kind](files, out)
    for i, (name, path) in enumerate(files):
        copy = same / part(i) / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return place, same


def png(seed):
    """A small image."""
    import numpy as np
    from PIL import Image

    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()
