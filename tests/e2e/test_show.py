"""The command `show`: figures, tables, numbers equal to `estimate`'s, and errors."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from entropy_cli.core.errors import ResultError
from entropy_cli.tokenizers.layers.var_layout import decoder_shapes
from tests.conftest import IMAGE_SIZE, SIZES
from tests.family_checkpoints import EXAMPLES, random_weights


@pytest.fixture
def some(images, tmp_path):
    """Return a folder with three of the images."""
    folder = tmp_path / "some"
    folder.mkdir()
    for i, path in enumerate(sorted(images.rglob("*.jpg"))[:3]):
        shutil.copy(path, folder / f"{i}.jpg")
    return folder


@pytest.fixture
def titok(tmp_path):
    """Save a tiny tokenizer whose tokens have no grid."""
    path = tmp_path / "titok.safetensors"
    save_file(random_weights(EXAMPLES["titok"].shapes), path)
    return path


@pytest.fixture
def decoded(checkpoint, tmp_path):
    """Save the tiny tokenizer with a decoder."""
    folder = tmp_path / "decoded"
    shutil.copytree(checkpoint.parent, folder)
    weights = load_file(checkpoint) | random_weights(decoder_shapes(SIZES))
    save_file(weights, folder / checkpoint.name)
    return folder / checkpoint.name


def shown(cli, *argv):
    code, out, err = cli("show", "--json", *argv)
    assert code == 0, err
    return json.loads(out)


def refused(cli, code, words, *argv):
    got, out, err = cli("show", *argv)
    assert (got, out) == (code, ""), err
    assert words in " ".join(err.split()), err
    assert "Traceback" not in err


@pytest.mark.parametrize("temperature", [None, 0.3])
def test_the_mean_over_images_is_what_estimate_gives(
    cli, estimate, some, checkpoint, tmp_path, temperature
):
    options = [] if temperature is None else ["--temperature", temperature]
    result = estimate("--data", some, "--ckpt", checkpoint, *options)
    found = shown(cli, *sorted(some.iterdir()), "--ckpt", checkpoint, *options, "-o", tmp_path / "out")
    for s, scale in enumerate(result["scales"]):
        means = [image["scales"][s]["assignment_entropy"] for image in found["images"]]
        assert np.mean(means) == pytest.approx(scale["assignment_entropy"]["value"], abs=1e-6)
    average = result["average"]["token_weighted"]["assignment_entropy"]["value"]
    assert np.mean([i["assignment_entropy"] for i in found["images"]]) == pytest.approx(
        average, abs=1e-6
    )
    image = found["images"][0]
    tokens = [entropy for scale in image["scales"] for entropy in scale["token_entropy"]]
    assert image["tokens"] == len(tokens) == 85
    assert image["nats_per_image"] == pytest.approx(sum(tokens))
    assert image["bits_per_pixel"] == pytest.approx(sum(tokens) / np.log(2) / IMAGE_SIZE**2)


def test_temperatures_of_a_result_are_those_fitted_there(cli, estimate, some, checkpoint, tmp_path):
    result = estimate("--data", some, "--ckpt", checkpoint, "--temperature", "auto")
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result))
    images = sorted(some.iterdir())
    found = shown(cli, *images, "--ckpt", checkpoint, "--result", path, "-o", tmp_path / "out")
    for s, scale in enumerate(result["scales"]):
        scales = [image["scales"][s] for image in found["images"]]
        assert {one["temperature"] for one in scales} == {scale["temperature"]}
        mean = np.mean([one["assignment_entropy"] for one in scales])
        assert mean == pytest.approx(scale["assignment_entropy"]["value"], abs=1e-6)
    other = [images[0], "--ckpt", checkpoint, "--result", path]
    result["tokenizer"]["checkpoint_sha256"] = "0" * 64
    path.write_text(json.dumps(result))
    refused(cli, 3, "is of another checkpoint", *other)
    refused(cli, 3, "its patch_nums is [1, 2, 4, 8]", *other, "--patch-nums", "1,8")
    refused(cli, 2, "Leave one of the two out", *other, "--temperature", 1)
    refused(
        cli,
        3,
        "result of entropy-cli",
        images[0],
        "--ckpt",
        checkpoint,
        "--result",
        checkpoint.with_name("config.json"),
    )


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]
)
def test_each_figure_format_is_written_and_the_table_names_it(
    cli, some, checkpoint, tmp_path, suffix, start
):
    figure = tmp_path / f"x{suffix}"
    code, out, err = cli("show", some / "0.jpg", "--ckpt", checkpoint, "-o", figure)
    assert code == 0, err
    assert figure.read_bytes().startswith(start)
    assert f"figure: {figure}" in out
    assert "no reconstructions: the checkpoint holds no decoder" in out
    assert [line.split()[3] for line in out.splitlines() if line[:1].isdigit()][:4] == [
        "1",
        "4",
        "16",
        "64",
    ]


def test_figures_of_several_images_get_names_of_their_own(cli, some, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(some / "1.jpg", other / "0.jpg")
    found = shown(cli, some / "0.jpg", other / "0.jpg", "--ckpt", checkpoint)
    names = ["0.entropy.png", "0-2.entropy.png"]
    assert [image["picture"] for image in found["images"]] == names
    for name in names:
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 1000
    assert (tmp_path / names[0]).read_bytes() != (tmp_path / names[1]).read_bytes()


def test_with_a_decoder_each_scale_has_an_image_and_its_psnr(cli, some, decoded, checkpoint, tmp_path):
    found = shown(cli, some / "0.jpg", "--ckpt", decoded, "-o", tmp_path / "with.png")
    assert found["settings"]["no_decoder"] is None
    assert all(scale["psnr_db"] is not None for scale in found["images"][0]["scales"])
    shown(cli, some / "0.jpg", "--ckpt", checkpoint, "-o", tmp_path / "without.png")
    with Image.open(tmp_path / "with.png") as taller, Image.open(tmp_path / "without.png") as lower:
        assert taller.height > lower.height


def test_tokens_without_a_grid_are_shown_in_their_order(cli, some, titok, tmp_path):
    (image,) = shown(cli, some / "0.jpg", "--ckpt", titok, "--temperature", 1, "-o", tmp_path / "x.png")[
        "images"
    ]
    (scale,) = image["scales"]
    assert (scale["grid"], scale["patch_num"], len(scale["codes"])) == ([1, 5], None, 5)
    worst = scale["token_entropy"].index(scale["largest"])
    assert scale["most_undecided"] == [0, worst]


def test_depths_are_shown_on_their_grid(cli, some, tmp_path):
    path = tmp_path / "rq.safetensors"
    save_file(random_weights(EXAMPLES["rq-vae"].shapes), path)
    (image,) = shown(cli, some / "0.jpg", "--ckpt", path, "--image-size", 16, "-o", tmp_path / "x.png")[
        "images"
    ]
    assert [scale["grid"] for scale in image["scales"]] == [[8, 8]] * 3


def test_names_that_a_font_lacks_are_drawn_all_the_same(cli, some, checkpoint, tmp_path):
    path = some / "$a_{b} 山\udcff.jpg"
    shutil.copy(some / "0.jpg", path)
    shown(cli, path, "--ckpt", checkpoint, "-o", tmp_path / "x.png")


def test_auto_is_refused_with_what_to_do(cli, some, checkpoint, titok):
    auto = [some / "0.jpg", "--ckpt", checkpoint, "--temperature", "auto"]
    refused(cli, 3, "Give a number with --temperature, or the result", *auto)
    refused(cli, 3, "Give a number with --temperature, or the result", some / "0.jpg", "--ckpt", titok)
    refused(cli, 2, "expected one number", *auto[:-1], "1,2")


def test_images_that_cannot_be_read_are_named(cli, some, checkpoint, tmp_path):
    (tmp_path / "x.jpg").write_text("no image")
    for path, words in (
        (tmp_path / "none.jpg", "none.jpg: no such image"),
        (tmp_path / "x.jpg", "x.jpg: can't be read"),
        (some, "a folder, expected an image file"),
    ):
        output = tmp_path / "out"
        refused(cli, 3, words, some / "0.jpg", path, "--ckpt", checkpoint, "-o", output)
        assert not output.exists() or not list(output.iterdir())
    refused(cli, 3, "not a checkpoint", some / "0.jpg", "--ckpt", tmp_path / "x.jpg")


def test_outputs_are_checked_before_the_work(cli, some, checkpoint, tmp_path):
    one, ckpt = some / "0.jpg", ("--ckpt", checkpoint)
    png = tmp_path / "0.png"
    with Image.open(one) as picture:
        picture.save(png)
    before = png.read_bytes()
    refused(cli, 3, "is the same file as IMAGE", png, *ckpt, "-o", png)
    assert png.read_bytes() == before
    refused(cli, 3, "there is no folder", one, *ckpt, "-o", tmp_path / "no" / "x.png")
    refused(cli, 3, "there is no folder", one, *ckpt, "-o", tmp_path / "no" / "x")
    refused(cli, 2, "expected a file name ending in .png", one, *ckpt, "-o", tmp_path / "x.jpg")
    refused(cli, 2, "Give a folder", one, some / "1.jpg", *ckpt, "-o", tmp_path / "x.png")
    refused(cli, 2, "--ckpt", one)


def test_the_table_is_printed_where_no_figure_can_be_written(
    cli, some, checkpoint, tmp_path, monkeypatch
):
    def full(*_):
        raise ResultError("x.png: can't be written: No space left on device.")

    monkeypatch.setattr("entropy_cli.commands.show.show.write_figure", full)
    argv = (some / "0.jpg", "--ckpt", checkpoint, "--temperature", 1, "-o", tmp_path / "x.png")
    code, out, err = cli("show", "--json", *argv)
    assert code == 3 and json.loads(out)["images"]
    assert err.splitlines()[-1].endswith("on device. The same command writes it again.")
