"""Files of latents: every format, type and layout gives the same; what is wrong is one sentence."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.e2e.test_estimate import assert_same

GENERATOR = torch.Generator().manual_seed(5)
# Exact in float16 and bfloat16 too.
Z = (torch.randn(36, 3, 4, 5, generator=GENERATOR) * 16).round() / 16
CODES = torch.randn(7, 3, generator=GENERATOR)


@pytest.fixture
def codes(tmp_path):
    np.save(tmp_path / "codes.npy", CODES.numpy())
    return tmp_path / "codes.npy"


@pytest.fixture
def run(estimate, codes):
    """The result of a file of latents, or the last line of the error, which has to be one."""

    def run(text, *options, codebook=codes):
        result = estimate("--latents", text, "--codebook", codebook, *options)
        if isinstance(result, tuple):
            code, err = result
            assert code == 3 and "Traceback" not in err, err
            assert err.splitlines()[-1].startswith("error: ")
            return err.splitlines()[-1]
        return result

    return run


def write_npz(path, z, save=np.savez):
    save(path, other=np.arange(3), a=z, words=["x"])


def write(path, version):
    with path.open("wb") as file:
        np.lib.format.write_array(file, Z.numpy(), version)


def legacy(path, value):
    torch.save(value, path, _use_new_zipfile_serialization=False)


FORMATS = {
    "z.safetensors": lambda path: save_file({"z": Z, "n": torch.arange(3)}, path),
    "z.npy": lambda path: np.save(path, Z.numpy()),
    "fortran.npy": lambda path: np.save(path, np.asfortranarray(Z.numpy())),
    "big-endian.npy": lambda path: np.save(path, Z.numpy().astype(">f4")),
    "version-2.npy": lambda path: write(path, (2, 0)),
    "stored.npz": lambda path: write_npz(path, Z.numpy()),
    "fortran.npz": lambda path: write_npz(path, np.asfortranarray(Z.numpy())),
    "compressed.npz": lambda path: write_npz(path, Z.numpy(), np.savez_compressed),
    "dict.pt": lambda path: torch.save({"z": Z, "labels": torch.arange(36)}, path),
    "nested.pt": lambda path: torch.save({"out": {"latents": [Z]}, "epoch": 3}, path),
    "bare.pt": lambda path: torch.save(Z, path),
    "strided.pt": lambda path: torch.save(Z.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2), path),
    "part.pt": lambda path: torch.save(torch.cat([Z, Z])[36:], path),
    "bare.pth": lambda path: legacy(path, Z),
    "dict.bin": lambda path: legacy(path, {"z": torch.nn.Parameter(Z)}),
    "colon:in:name.npy": lambda path: np.save(path, Z.numpy()),
    "no_suffix": lambda path: write(path, (1, 0)),
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What every file of these latents is to give."""
    from entropy_cli import estimate

    result = estimate([Z], lambda z: z, codebook=CODES)
    return json.loads(result.to_json())


@pytest.mark.parametrize("name", FORMATS)
def test_formats(run, expected, tmp_path, name):
    FORMATS[name](tmp_path / name)
    result = run(tmp_path / name)
    assert_same(expected, result, tolerance=1e-6)
    assert result["scales"][0]["name"] == "4 x 5" and result["tokenizer"]["patch_nums"] == [None]


@pytest.mark.parametrize(
    "suffix, dtype",
    [
        (suffix, dtype)
        for suffix in (".safetensors", ".pt", ".npy")
        for dtype in ("float16", "bfloat16", "float32", "float64")
        if (suffix, dtype) != (".npy", "bfloat16")  # numpy has none
    ],
)
def test_types(run, expected, tmp_path, dtype, suffix):
    z = Z.to(getattr(torch, dtype))
    path = tmp_path / f"z{suffix}"
    if suffix == ".npy":
        np.save(path, z.numpy())
    else:
        (save_file if suffix == ".safetensors" else torch.save)({"z": z}, path)
    assert_same(expected, run(path), tolerance=1e-6)


LAYOUTS = {
    "M,C,h,w": Z,
    "M,h,w,C": Z.permute(0, 2, 3, 1),
    "M,l,C": Z.flatten(2).transpose(1, 2),
    "M,C,l": Z.flatten(2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(run, expected, tmp_path, layout):
    np.save(tmp_path / "z.npy", LAYOUTS[layout].contiguous().numpy())
    result = run(tmp_path / "z.npy")
    assert_same(expected, result, tolerance=1e-6)
    assert result["scales"][0]["tokens"] == 20


def test_one_latent_an_image(run, tmp_path):
    np.save(tmp_path / "flat.npy", Z[:, :, 0, 0].numpy())
    np.save(tmp_path / "grid.npy", Z[:, :, :1, :1].numpy())
    flat, grid = run(tmp_path / "flat.npy"), run(tmp_path / "grid.npy")
    assert_same(flat, grid, tolerance=0)
    assert flat["tokenizer"]["patch_nums"] == [None] and grid["tokenizer"]["patch_nums"] == [1]


@pytest.mark.parametrize("z", [Z[..., :3], Z.flatten(2)[..., :3]], ids=["C == w", "C == l"])
def test_where_the_channels_could_be_at_both_ends_the_user_says_which(run, tmp_path, z):
    """Of a row they have to; a grid is read as torch has it, with a warning."""
    np.save(tmp_path / "z.npy", z.numpy())
    found = run(tmp_path / "z.npy")
    if z.ndim == 3:
        assert "(images, C, l) or (images, l, C). Say which with --channels first or --channels" in found
    else:
        assert_same(found, run(tmp_path / "z.npy", "--channels", "first"), tolerance=0)
    for channels, vectors in (("first", z.flatten(2).transpose(1, 2)), ("last", z)):
        nearest = torch.cdist(vectors.reshape(-1, 3).double(), CODES.double()).argmin(1)
        result = run(tmp_path / "z.npy", "--channels", channels)
        assert result["scales"][0]["code_counts"] == torch.bincount(nearest, minlength=7).tolist()


def test_channels_that_are_named_have_to_fit(run, expected, tmp_path):
    np.save(tmp_path / "z.npy", Z.numpy())
    err = run(tmp_path / "z.npy", "--channels", "last")
    assert "got shape (36, 3, 4, 5), channels last, expected (images, C, h, w)" in err
    assert_same(expected, run(tmp_path / "z.npy", "--channels", "first"), tolerance=0)
    np.save(tmp_path / "z.npy", Z[:, :, 0, 0].numpy())
    for channels in ("first", "last"):
        assert run(tmp_path / "z.npy", "--channels", channels)["scales"][0]["tokens"] == 1


@pytest.mark.parametrize(
    "shape, channels, bits",
    [
        ((4, 5, 2, 2), None, 5),  # a square grid
        ((4, 2, 2, 5), None, 2),  # with a warning
        ((4, 2, 2, 5), "last", 5),
        ((4, 5, 2, 3), "last", 3),
        ((4, 5, 2), None, None),
        ((4, 5, 2), "first", 5),
        ((4, 5, 2), "last", 2),
        ((4, 1, 1), None, 1),
        ((4, 5), None, 5),
    ],
)
def test_nothing_but_a_grid_tells_the_number_of_bits(estimate, tmp_path, shape, channels, bits):
    np.save(tmp_path / "z.npy", np.ones(shape, np.float32))
    options = ("--channels", channels) if channels else ()
    result = estimate("--latents", tmp_path / "z.npy", "--rule", "sign", *options)
    if bits is None:
        code, err = result
        assert code == 3 and "Say which with --channels" in err.splitlines()[-1]
    else:
        assert result["tokenizer"]["vocab_size"] == 2**bits


def test_several_scales_in_the_natural_order_of_their_names(run, tmp_path):
    tensors = {f"s{i}": Z[:, :, :1, :i].contiguous() for i in (1, 2, 3, 4)}
    save_file({**tensors, "s10": Z[:, :, 0, :].contiguous()}, tmp_path / "z.safetensors")
    result = run(tmp_path / "z.safetensors")
    assert [scale["name"] for scale in result["scales"]] == ["s1", "s2", "s3", "s4", "s10"]
    assert [scale["tokens"] for scale in result["scales"]] == [1, 2, 3, 4, 5]
    result = run(f"{tmp_path}/z.safetensors:s3,s1")
    assert [scale["name"] for scale in result["scales"]] == ["s3", "s1"]


def damage(path, content):
    path.write_bytes(content)
    return path


def test_wrong_files(run, codes, tmp_path):
    good = tmp_path / "z.npz"
    write_npz(good, Z.numpy())
    np.save(tmp_path / "z.npy", Z.numpy())
    save_file({"z": Z, "n": torch.arange(3)}, tmp_path / "z.safetensors")
    whole = {name: (tmp_path / name).read_bytes() for name in ("z.npz", "z.npy", "z.safetensors")}
    np.save(tmp_path / "objects.npy", np.array([{}, []], object), allow_pickle=True)
    np.save(tmp_path / "integers.npy", np.ones((4, 3), int))
    np.save(tmp_path / "complex.npy", np.ones((4, 3), complex))
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    np.save(tmp_path / "long.npy", np.ones((4, 3), np.longdouble))
    torch.save({"a": 1}, tmp_path / "empty.pt")
    for text, words in (
        (tmp_path / "none.npy", "no such file"),
        (tmp_path, "is no ordinary file"),
        (f"{good}:b", "has no tensor b; it has a, other, words"),
        (f"{good}:other", "does not hold floating-point numbers"),
        (f"{good}:words", "does not hold floating-point numbers"),
        (f"{good}:a,a", "named twice"),
        (tmp_path / "objects.npy", "no tensors of floating-point numbers"),
        (tmp_path / "integers.npy", "no tensors of floating-point numbers"),
        (tmp_path / "complex.npy", "no tensors of floating-point numbers"),
        (tmp_path / "words.npy", "no tensors of floating-point numbers"),
        (tmp_path / "long.npy", "no tensors of floating-point numbers"),
        (tmp_path / "empty.pt", "no tensors of floating-point numbers"),
        (damage(tmp_path / "cut.npy", whole["z.npy"][:-5]), "takes 8640 bytes, but it has 8635"),
        (damage(tmp_path / "head.npy", whole["z.npy"][:20]), "damaged"),
        (damage(tmp_path / "cut.npz", whole["z.npz"][:-50]), "damaged"),
        (damage(tmp_path / "cut.safetensors", whole["z.safetensors"][:-5]), "damaged"),
        (damage(tmp_path / "zero", b""), "not a checkpoint"),
        (damage(tmp_path / "text", b"some text " * 9), "not a checkpoint"),
    ):
        assert words in run(text), text
    for text, words in ((tmp_path / "none.npy", "no such file"), (f"{good}:words", "floating-point")):
        assert words in run(tmp_path / "z.npy", codebook=text)


@pytest.mark.parametrize(
    "z, codebook, words",
    [
        (torch.ones(4, 2), CODES, "got shape (4, 2), expected (images, C, h, w)"),
        (torch.ones(4, 2, 5, 6), CODES, "with C = 3, the dimensions of a code"),
        (torch.ones(4), CODES, "got shape (4,)"),
        (torch.ones(4, 3, 1, 1, 1), CODES, "got shape (4, 3, 1, 1, 1)"),
        (torch.ones(4, 3, 0, 5), CODES, "got shape (4, 3, 0, 5)"),
        (torch.ones(0, 3), CODES, "no latents found"),
        (torch.ones(4, 3), torch.ones(3), "expected floating-point codes (V, C)"),
        (torch.ones(4, 3), torch.ones(0, 3), "expected floating-point codes (V, C)"),
        (torch.ones(4, 3), CODES.clone().fill_(torch.nan), "NaN, infinity"),
        (torch.ones(4, 3), CODES.double() * 1e200, "too large for float32"),
        (torch.full((4, 3), 1e30), CODES, "are NaN or infinite, or too large. Expected numbers whose"),
        (torch.full((4, 3), torch.nan), CODES, "none of the first 4 images could be read; the first, "),
        (torch.full((4, 3), torch.inf), CODES, "NaN or infinity. Check --latents."),
    ],
)
def test_wrong_shapes_and_numbers(run, tmp_path, z, codebook, words):
    save_file({"z": z}, tmp_path / "z.safetensors")
    save_file({"codes": codebook}, tmp_path / "c.safetensors")
    err = run(tmp_path / "z.safetensors", "--on-error", "skip", codebook=tmp_path / "c.safetensors")
    assert words in err


def test_scales_that_do_not_fit_together(run, tmp_path):
    save_file({"a": Z, "b": Z[:30].clone()}, tmp_path / "z.safetensors")
    assert "got 36 in a, 30 in b; expected latents of the same" in run(tmp_path / "z.safetensors")
    save_file({f"c{i}": CODES.clone() for i in range(3)}, tmp_path / "c.safetensors")
    save_file({"a": Z, "b": Z.clone()}, tmp_path / "z.safetensors")
    err = run(tmp_path / "z.safetensors", codebook=tmp_path / "c.safetensors")
    assert "got c0 (7, 3), c1 (7, 3), c2 (7, 3) for 2 scales of latents, expected one" in err


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npy"])
def test_a_batched_codebook_holds_its_codes(run, tmp_path, suffix):
    """vector-quantize-pytorch keeps codes as (1, V, C)."""
    np.save(tmp_path / "z.npy", Z.numpy())
    path, codes_1VC = tmp_path / f"vq{suffix}", CODES[None].clone()
    if suffix == ".npy":
        np.save(path, codes_1VC.numpy())
    else:
        (torch.save if suffix == ".pt" else save_file)({"vq._codebook.embed": codes_1VC}, path)
    result = run(tmp_path / "z.npy", codebook=path)
    assert (result["tokenizer"]["vocab_size"], result["tokenizer"]["latent_dim"]) == (7, 3)
    assert_same(run(tmp_path / "z.npy"), result, tolerance=0)


def test_a_stack_of_codebooks_is_of_as_many_scales(run, tmp_path):
    save_file({"a": Z, "b": (Z / 2).clone()}, tmp_path / "z.safetensors")
    steps = {"0": CODES.clone(), "1": CODES.flip(0) / 2}
    save_file(steps, tmp_path / "several.safetensors")
    stack_QVC = torch.stack(list(steps.values()))
    np.save(tmp_path / "stack.npy", stack_QVC.numpy())
    torch.save({name: codes[None] for name, codes in steps.items()}, tmp_path / "batched.pt")
    expected = run(tmp_path / "z.safetensors", codebook=tmp_path / "several.safetensors")
    assert expected["scales"][0]["code_counts"] != expected["scales"][1]["code_counts"]
    for name in ("stack.npy", "batched.pt"):
        assert_same(expected, run(tmp_path / "z.safetensors", codebook=tmp_path / name), tolerance=0)
    for given in (f"{tmp_path}/z.safetensors:a", tmp_path / "z.safetensors"):
        np.save(tmp_path / "stack.npy", torch.cat([stack_QVC, stack_QVC[:1]]).numpy())
        err = run(given, codebook=tmp_path / "stack.npy")
        assert "got stack (3, 7, 3) for" in err and "(Q, V, C) for Q scales" in err
    torch.save({"0": stack_QVC, "1": CODES[None]}, tmp_path / "mixed.pt")
    assert "got 0 (2, 7, 3), 1 (1, 7, 3) for 2" in run(
        tmp_path / "z.safetensors", codebook=tmp_path / "mixed.pt"
    )


def test_a_file_with_several_tensors_says_which_could_be_codes(run, tmp_path):
    np.save(tmp_path / "z.npy", Z.numpy())
    weights = {"in.weight": torch.ones(3, 8), "_codebook.cluster_size": torch.ones(1, 7)}
    weights |= {f"_codebook.{name}": CODES[None] for name in ("embed_avg", "embed")}
    torch.save(weights, path := tmp_path / "vq.pt")
    err = run(tmp_path / "z.npy", codebook=path)
    assert f"These could be meant: {path}:_codebook.embed (1, 7, 3)." in err
    err = run(tmp_path / "z.npy", codebook=f"{path}:embed")
    assert "has no tensor embed; it has _codebook.embed, _codebook.embed_avg, _codebook.c" in err
