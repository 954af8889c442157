"""`entropy_cli.estimate` and its neighbours: as documented, the same numbers on every way to them."""

import inspect
import json
import logging
import re
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import entropy_cli
from entropy_cli import estimate, evaluate, load_tokenizer, read_result
from entropy_cli.api.python_words import PHRASES, in_python_words
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.results.tables import codes_table, total_counts
from entropy_cli.results.text import render
from tests.e2e.test_estimate import assert_same
from tests.reference import LEVELS, codes_of, reference

GENERATOR = torch.Generator().manual_seed(1)
Z = torch.randn(90, 5, 3, generator=GENERATOR)
CODES = torch.randn(9, 3, generator=GENERATOR)


def same(one, two, tolerance=1e-6):
    assert_same(json.loads(one.to_json()), json.loads(two.to_json()), tolerance=tolerance)


def itself(z):
    return z


def test_a_callable_is_its_definition():
    result = estimate([Z[:50], Z[50:]], lambda z: 2 * z, codebook=CODES, temperature=[0.5, 2])
    assert [at.temperature for at in result.temperatures] == [0.5, 2.0]
    for at in result.temperatures:
        wanted = reference(2 * Z.numpy(), CODES.numpy(), "l2", at.temperature)
        got = at.average.token_weighted
        assert got.assignment_entropy.plug_in == pytest.approx(wanted["assignment_entropy"], abs=1e-5)
        assert got.marginal_entropy.plug_in == pytest.approx(wanted["marginal_entropy"], abs=1e-5)
    assert result.scales[0].code_counts == wanted["counts"]
    assert result.data.images_used == 90 and result.settings.temperature_source.startswith("given")
    assert "given from Python" in render(result, explain=True)


@pytest.mark.parametrize("rule", ["sign", "bsq", "levels"])
def test_rules_without_a_codebook(rule):
    z = Z.clamp(-0.5, 0.5)
    levels = LEVELS if rule == "levels" else None
    result = estimate([z], itself, rule=rule, levels=levels, temperature=0.3, channels="last")
    wanted = reference(z.numpy(), codes_of(rule, dims=3), rule, 0.3)
    value = result.average.token_weighted.assignment_entropy.value
    assert value == pytest.approx(wanted["assignment_entropy"], abs=1e-6)
    assert result.scales[0].code_counts == wanted["counts"]


def test_all_ways_to_a_checkpoint(checkpoint, images, cli, tmp_path):
    """A folder, batches of its pictures, and the command line."""
    from entropy_cli.images.decode import read_image
    from entropy_cli.images.image_set import find_images

    tokenizer = load_tokenizer(str(checkpoint))
    found = find_images(images)
    crop = tokenizer.spec.crop.apply
    pictures = torch.stack([read_image(found.locate(i), crop) for i in range(len(found))])
    folder = estimate(images, tokenizer)
    batches = estimate((pictures[i : i + 20] for i in range(0, 70, 20)), tokenizer)
    for one, two in zip(folder.scales, batches.scales, strict=True):
        assert one.code_counts == two.code_counts
        assert one.assignment_entropy.value == pytest.approx(two.assignment_entropy.value, abs=1e-6)
    run = ("estimate", "--data", images, "--ckpt", checkpoint, "--batch-size", 16, "--workers", 0)
    assert cli(*run, "-o", tmp_path / "r.json")[0] == 0
    same(folder, read_result(tmp_path / "r.json"))


@pytest.mark.parametrize("temperature", [1, ("auto", 1)], ids=str)
def test_a_precision_and_workers_are_those_of_the_command(
    checkpoint, images, cli, tmp_path, temperature
):
    """With the same check of what the precision costs, and the same repeated images."""
    options = {"precision": "bf16", "temperature": temperature}
    tokenizer = load_tokenizer(checkpoint)
    folder = estimate(images, tokenizer, workers=1, **options)
    run = ("estimate", "--data", images, "--ckpt", checkpoint, "--workers", 0, "--precision", "bf16")
    run += ("--temperature", "1" if temperature == 1 else "auto,1")
    assert cli(*run, "-o", tmp_path / "r.json")[0] == 0
    command = read_result(tmp_path / "r.json")
    same(folder, command)
    assert folder.precision_check == command.precision_check and folder.precision_check["images"] == 64
    assert folder.data == command.data and folder.settings == command.settings
    assert folder.provenance["workers"] == 1


def test_images_are_known_by_their_content(checkpoint, pictures):
    """In any batches; in another precision the cost is measured on what there is."""
    tokenizer = load_tokenizer(checkpoint)
    whole = estimate([pictures], tokenizer)
    assert whole.data == estimate([pictures[:3], pictures[3:]], tokenizer).data
    assert whole.data != estimate([pictures + 1], tokenizer).data
    rounded = estimate([pictures[:3], pictures[3:]], tokenizer, precision="bf16")
    assert rounded.precision_check["images"] == len(pictures)
    assert (whole.settings.precision, whole.precision_check) == ("fp32", None)


def test_files_left_aside_are_logged(checkpoint, images, caplog, tmp_path):
    logger = logging.getLogger("entropy_cli.api.passes")
    shutil.copytree(images, tmp_path / "data")
    (tmp_path / "data" / "0.jpg_large").write_bytes(b"x")
    logger.addHandler(caplog.handler)
    try:
        estimate(tmp_path / "data", load_tokenizer(str(checkpoint)))
    finally:
        logger.removeHandler(caplog.handler)
    assert any(message.endswith(".jpg_large: 1 file") for message in caplog.messages)


@pytest.mark.parametrize("temperature", [0.7, "auto"])
def test_the_size_of_the_batches_moves_nothing(temperature):
    """The pilot of auto is 1024 images, however they come."""
    z = torch.randn(1100, 2, 3, generator=torch.Generator().manual_seed(8))
    z[1024:] *= 3
    whole = estimate([z], itself, codebook=CODES, temperature=temperature)
    for size in (1, 7, 64):
        batches = (z[i : i + size] for i in range(0, 1100, size))  # read once
        same(whole, estimate(batches, itself, codebook=CODES, temperature=temperature))
    if temperature == "auto":
        assert whole.provenance["temperature_fit"]["images"] == 1024


def test_several_scales_with_one_and_with_several_codebooks(tmp_path):
    scales = [Z[:, :1], Z[:, 1:].transpose(1, 2).unflatten(2, (2, 2)), Z[:, 0]]
    codes = [CODES, CODES[:4] + 1, CODES[2:]]

    def encode(i):
        return [of_scale[i] for of_scale in scales]

    each = [(CODES, [CODES] * 3), (CODES[None], [CODES] * 3), (codes, codes)]
    stack_QVC = torch.stack([CODES, CODES / 2, CODES + 1])
    for codebook, tables in [*each, (stack_QVC, list(stack_QVC))]:
        result = estimate(torch.arange(90).split(32), encode, codebook=codebook, temperature=0.5)
        assert [scale.tokens for scale in result.scales] == [1, 4, 1]
        assert result.tokenizer.patch_nums == [None, 2, None]
        assert (result.pooled is not None) == all(table is CODES for table in tables)
        for s, vectors in enumerate((Z[:, :1], Z[:, 1:], Z[:, :1])):
            wanted = reference(vectors.numpy(), tables[s].numpy(), "l2", 0.5)
            value = result.scales[s].assignment_entropy.value
            assert value == pytest.approx(wanted["assignment_entropy"], abs=1e-6)
            assert result.scales[s].code_counts == wanted["counts"]
        save_file({f"s{i}": z.contiguous() for i, z in enumerate(scales)}, tmp_path / "z.safetensors")


@pytest.mark.parametrize(("rule", "levels"), [("sign", None), ("bsq", None), ("levels", (4, 3, 2))])
def test_scales_of_the_same_grid_share_its_codes(rule, levels):
    """The usage of all scales together is counted over their union."""
    scales = [Z[:, :2].clamp(-0.5, 0.5), Z[:, 2:].clamp(-0.5, 0.5)]
    options = {"rule": rule, "levels": levels, "channels": "last"}
    result = estimate(torch.arange(90).split(32), lambda i: [z[i] for z in scales], **options)
    counts = [sum(of_code) for of_code in zip(*(s.code_counts for s in result.scales), strict=True)]
    assert result.pooled.usage.value == sum(n > 0 for n in counts) / len(counts)
    assert total_counts(result) == counts


def test_codes_of_different_codebooks_are_not_added():
    """Equal numbers of codes do not make them the same; the report shows the final scale's."""
    books = [CODES, CODES.flip(0)]
    result = estimate([Z], lambda z: [z, z], codebook=books, temperature=1)
    assert result.pooled is None
    first, final = (scale.code_counts for scale in result.scales)
    assert first == final[::-1] != final and total_counts(result) == final
    assert "over the final scale" in codes_table(result).caption


def test_a_result_is_written_and_read_back(tmp_path):
    result = estimate([Z.half(), Z.bfloat16()], itself, codebook=CODES.double(), rule="cosine")
    assert result.settings.temperature == "auto"
    for path in (tmp_path / "r.json", str(tmp_path / "r2.json")):
        result.write(path)
        same(result, read_result(path), tolerance=0)


def test_latents_opposite_to_their_codes_have_a_result_but_no_fitted_temperature():
    z, codes = -Z.abs(), CODES.abs()
    result = estimate([z], itself, codebook=codes, rule="cosine", temperature=1)
    assert json.loads(result.to_json())["provenance"]["temperature_if_hard"] is None
    with pytest.raises(EntropyCliError, match="at right angles or more"):
        estimate([z], itself, codebook=codes, rule="cosine")


def of(images=(Z,), encode=itself, **options):
    return lambda: estimate(images, encode, **{"codebook": CODES, **options})


@pytest.mark.parametrize(
    "call, words",
    [
        (of([]), "there are no images"),
        (of(iter(())), "there are no images"),
        (of([Z[:0]]), "there are no images"),
        (of(Z), "batches one after the other"),
        (of(3), "batches one after the other"),
        (of("folder"), "a folder needs a tokenizer from load_tokenizer"),
        (of([1, 2]), "images: got a value of type int"),
        (of([torch.tensor(1.0)]), "images: got shape () of float32"),
        (of([(Z, Z)]), "images: got a value of type tuple"),
        (of(encode=lambda z: None), "latents: got a value of type NoneType"),
        (of(encode=lambda z: []), "latents: got a value of type list"),
        (of(encode=lambda z: {"z": z}), "latents: got a value of type dict"),
        (of(encode=lambda z: [z, z.tolist()]), "latents: got a value of type list"),
        (of(encode=lambda z: z.numpy().astype(object)), "latents: got shape (90, 5, 3) of object"),
        (of(Z.numpy()), "batches one after the other"),
        (of([np.float32(1)]), "images: got a value of type float32"),
        (of([np.array(1.0)]), "images: got shape () of float64"),
        (of(encode=lambda z: z.long()), "latents: got shape (90, 5, 3) of int64"),
        (of(encode=lambda z: z[0, 0, 0]), "latents: got shape () of float32"),
        (of(encode=lambda z: z[1:]), "(89, 5, 3) of float32 for a batch of 90 images"),
        (of(encode=lambda z: z[..., :2]), "with C = 3, the dimensions of a code"),
        (of(encode=lambda z: z[:, :0]), "got shape (90, 0, 3)"),
        (of([Z, Z[:, 1:]]), "got shapes (4, 3) an image, expected (5, 3) as before"),
        (of(encode=lambda z: z * float("nan")), "0: its latents at scale 0 (5 tokens) are NaN"),
        (of([Z, Z * 1e30]), "90: its latents at scale 0 (5 tokens) are NaN or infinite, or too large"),
        (of(rule="nearest"), "rule nearest: expected l2"),
        (of(rule="logits"), "rule logits: expected l2"),
        (of(rule="sign"), "rule sign: has no use for codebook"),
        (of(codebook=None), "rule l2: needs codebook"),
        (of(levels=(3, 3, 3)), "rule l2: has no use for levels"),
        (of(rule="levels", codebook=None), "rule levels: needs levels"),
        (of(rule="levels", codebook=None, levels=()), "whole numbers from"),
        (of(rule="levels", codebook=None, levels=(3, 1, 3)), "from 2 to 65,536"),
        (of(rule="levels", codebook=None, levels=(3, 2.5, 3)), "whole numbers from"),
        (of(rule="levels", codebook=None, levels=3), "levels 3: expected"),
        (of(temperature=True), "temperature True: expected"),
        (of([Z * 9], rule="levels", codebook=None, levels=(3, 3, 3)), "beyond the outermost level"),
        (of(codebook=CODES.tolist()), "codebook: got a value of type list"),
        (of(codebook=np.array(["a"])), "codebook: got shape (1,) of <U1, expected a type that torch"),
        (of(codebook=CODES.long().numpy()), "expected floating-point codes (V, C)"),
        (of([Z[:, :3]]), "Say which with channels first or channels last"),
        (of([Z], rule="sign", codebook=None), "could be (images, C, l) or (images, l, C)"),
        (of(channels="first"), "got shape (90, 5, 3), channels first, expected (images, C, h, w)"),
        (of(channels="middle"), "channels middle: expected first or last"),
        (of(temperature="auto", encode=lambda z: 0 * z, codebook=0 * CODES), "temperature auto: every"),
        (of(codebook=[CODES, CODES]), "codebook: got (9, 3), (9, 3) for 1 scale of latents, expected"),
        (of(codebook=torch.stack([CODES] * 4)), "codebook: got (4, 9, 3) for 1 scale of latents"),
        (of(codebook=[]), "codebook: got none for 1 scale"),
        (of(codebook=CODES.long()), "expected floating-point codes (V, C)"),
        (of(codebook=CODES[0]), "expected floating-point codes (V, C)"),
        (of(codebook=CODES * float("inf")), "NaN, infinity"),
        (of(temperature=0), "temperature 0: expected"),
        (of(temperature=-1.0), "temperature -1.0: expected"),
        (of(temperature=float("nan")), "temperature nan: expected"),
        (of(temperature=float("inf")), "temperature inf: expected"),
        (of(temperature=[]), "temperature []: expected"),
        (of(temperature=[1, 1.0]), "temperature [1, 1.0]: expected"),
        (of(temperature=[1, 0]), "temperature [1, 0]: expected"),
        (of(temperature="hot"), "temperature 'hot': expected"),
        (of(temperature="auto", rule="dot"), "squared distances"),
        (of(device="tpu"), "device tpu: expected"),
        (of(encode="vae.pth"), "tokenizer: expected one from load_tokenizer"),
    ],
)
def test_what_is_wrong_is_one_sentence(call, words):
    with pytest.raises(EntropyCliError) as caught:
        call()
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_wrong_with_a_loaded_tokenizer(checkpoint, images, tmp_path):
    tokenizer = load_tokenizer(checkpoint)
    size = tokenizer.spec.image_size
    picture = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    for batch in (
        picture.float(),
        picture[..., 1:],
        picture[:, :1],
        picture[0],
        picture.permute(0, 2, 3, 1),
    ):
        with pytest.raises(EntropyCliError, match="expected uint8 images"):
            estimate([batch], tokenizer)
    with pytest.raises(EntropyCliError, match="workers 2: read a folder"):
        estimate([picture], tokenizer, workers=2)
    for options, words in (
        ({"precision": "fp8"}, "precision fp8: expected auto, fp32, tf32, fp16, bf16"),
        ({"precision": "tf32", "device": "cpu"}, "^precision tf32: cpu has no TF32"),
        ({"workers": -1}, "workers -1: expected a whole number"),
        ({"workers": 1.5}, r"workers 1\.5: expected a whole number"),
    ):
        with pytest.raises(EntropyCliError, match=words):
            estimate(images, tokenizer, **options)
    with pytest.raises(EntropyCliError, match="precision bf16: is that of a loaded tokenizer's encoder"):
        estimate([Z], itself, codebook=CODES, precision="bf16")
    others = ({"codebook": CODES}, {"levels": (3, 3)}, {"rule": "cosine"}, {"channels": "last"})
    for options in others:
        with pytest.raises(EntropyCliError, match="a loaded tokenizer has its own"):
            estimate([picture], tokenizer, **options)
    with pytest.raises(EntropyCliError, match="no such folder"):
        estimate(tmp_path / "none", tokenizer)
    for options, words in (
        ({"family": "vae"}, "family vae: expected auto"),
        ({"rule": "sign"}, "rule sign: expected l2, cosine, dot"),
        ({"weights": "best"}, "weights best: expected raw, ema"),
        ({"image_size": 0}, "expected whole numbers from"),
        ({"patch_nums": ()}, "expected whole numbers from"),
        ({"patch_nums": (1, -2)}, "expected whole numbers from"),
    ):
        with pytest.raises(EntropyCliError, match=words):
            load_tokenizer(checkpoint, **options)
    with pytest.raises(EntropyCliError, match="none"):
        load_tokenizer(tmp_path / "none.pth")
    for call in (lambda: estimate("", tokenizer), lambda: load_tokenizer(" ")):
        with pytest.raises(EntropyCliError, match="is empty, expected a path"):
            call()


def test_numpy_arrays_are_taken_wherever_tensors_are(checkpoint):
    """Of other byte orders, strides and types too, and read-only."""
    z, codes = Z.double().numpy(), CODES.double().numpy()
    expected = estimate([Z], itself, codebook=CODES, temperature=0.5)
    fixed = z.copy()
    fixed.flags.writeable = False
    for array in (z, z.astype(">f8"), fixed, np.ascontiguousarray(z[::-1])[::-1]):
        result = estimate([array[:40], array[40:]], itself, codebook=[codes], temperature=0.5)
        same(expected, result)
    same(expected, estimate([Z], lambda batch: batch.numpy(), codebook=codes[None], temperature=0.5))
    for temperature in (np.float32(0.5), np.array([0.5])):
        same(expected, estimate([Z], itself, codebook=CODES, temperature=temperature))
    scales = estimate([z], lambda batch: [batch, Z], codebook=[codes, CODES], temperature=0.5)
    assert scales.scales[0].code_counts == scales.scales[1].code_counts
    tokenizer = load_tokenizer(checkpoint)
    size = tokenizer.spec.image_size
    picture = torch.randint(256, (20, 3, size, size), dtype=torch.uint8, generator=GENERATOR)
    same(estimate([picture], tokenizer), estimate([picture.numpy()], tokenizer))
    with pytest.raises(EntropyCliError, match="float32, expected uint8 images"):
        estimate([picture.float().numpy()], tokenizer)


@pytest.mark.parametrize("tokens", [5, 3])
def test_the_order_of_axes_is_found_or_asked_for(tokens):
    z_BlC = torch.randn(60, tokens, 3, generator=torch.Generator().manual_seed(4))
    wanted = reference(z_BlC.numpy(), CODES.numpy(), "l2", 0.5)["assignment_entropy"]
    for channels, z in (("first", z_BlC.transpose(1, 2)), ("last", z_BlC)):
        result = estimate([z], itself, codebook=CODES, temperature=0.5, channels=channels)
        value = result.average.token_weighted.assignment_entropy.plug_in
        assert value == pytest.approx(wanted, abs=1e-6)
        if tokens != 3:
            same(result, estimate([z], itself, codebook=CODES, temperature=0.5))


def test_a_grid_that_fits_both_ways_is_read_as_torch_has_it(caplog):
    z_BChw = torch.randn(60, 3, 2, 3, generator=GENERATOR)
    logger = logging.getLogger("entropy_cli.tokenizers.latents")
    logger.addHandler(caplog.handler)
    try:
        told = estimate([z_BChw], itself, codebook=CODES, channels="first")
        assert not caplog.messages
        same(told, estimate([z_BChw], itself, codebook=CODES))
        assert "is read as (images, C, h, w), with channels first" in caplog.text
    finally:
        logger.removeHandler(caplog.handler)


def raised(call):
    with pytest.raises(EntropyCliError) as caught:
        call()
    return str(caught.value)


def test_errors_name_parameters_not_options(checkpoint, weights, images, monkeypatch, tmp_path):
    tokenizer = load_tokenizer(checkpoint)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.jpg").write_bytes(b"no picture")
    save_file({"other": torch.ones(2)}, tmp_path / "other.safetensors")
    save_file({**weights, "quant_conv.weight": weights["quant_conv.weight"] * 1e30}, tmp_path / "big.pt")
    big = {"image_size": 32, "patch_nums": (1, 2, 4, 8)}
    for call, words in (
        (lambda: estimate(tmp_path / "bad", tokenizer, temperature="auto"), "Check images."),
        (
            lambda: estimate(tmp_path / "none", tokenizer),
            "Give as images a folder of images, or archives",
        ),
        (lambda: estimate(tmp_path / "{a,b}.tar", tokenizer), "no such file"),
        (lambda: load_tokenizer(checkpoint, image_size=33), "Give image_size 32 or 36."),
        (lambda: load_tokenizer(checkpoint, weights="ema"), "weights ema: "),
        (lambda: load_tokenizer(checkpoint, family="ibq"), "Choose another family, or give estimate"),
        (lambda: load_tokenizer(tmp_path / "other.safetensors"), "give estimate a callable."),
        (lambda: estimate([Z], itself, codebook=CODES, device="cuda:99"), "device cuda:99: no such"),
        (
            lambda: estimate(images, load_tokenizer(tmp_path / "big.pt", **big)),
            "or too large. The checkpoint is damaged, or the precision too low for it: try another "
            "precision.",
        ),
    ):
        message = raised(call)
        assert words in message and " --" not in message and "\n" not in message, message


def test_every_option_that_an_error_may_name_is_a_parameter():
    root = Path(entropy_cli.__file__).parent
    rooms = [
        path for room in ("entropy", "images", "tokenizers") for path in (root / room).rglob("*.py")
    ]
    rooms += [
        root / "streaming" / f"{name}.py" for name in ("pilot", "device", "pending", "batch_processor")
    ]
    found = {option for path in rooms for option in re.findall("--[a-z][a-z-]+", path.read_text())}
    # Of options that the functions lack, and of the advice that is replaced as a whole.
    elsewhere = {"--split", "--batch-size", "--context", "--probe"}
    parameters = {
        name for f in (estimate, evaluate, load_tokenizer) for name in inspect.signature(f).parameters
    }
    assert {in_python_words(option) for option in found - elsewhere} <= {*parameters, *PHRASES.values()}


def test_a_tokenizer_stays_where_it_is(checkpoint, monkeypatch):
    tokenizer = load_tokenizer(checkpoint)
    size = tokenizer.spec.image_size
    picture = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    before = tokenizer.encode(picture)
    moved = tokenizer.to(torch.device("meta"), "fp32")
    assert all(weight.is_meta for weight in moved.network.parameters())
    assert torch.equal(before, tokenizer.encode(picture))
    given = {id(weight) for weight in tokenizer.network.parameters()}
    estimate([picture], tokenizer)
    assert {id(weight) for weight in tokenizer.network.parameters()} == given
    assert torch.equal(before, tokenizer.encode(picture))


def test_a_network_of_the_user_is_not_changed():
    network = torch.nn.Sequential(torch.nn.Conv1d(3, 3, 1), torch.nn.Dropout()).train()
    state = {name: weight.clone() for name, weight in network.state_dict().items()}
    estimate([Z.transpose(1, 2)], network, codebook=CODES)
    assert network.training and all(weight.requires_grad for weight in network.parameters())
    assert all(torch.equal(weight, state[name]) for name, weight in network.state_dict().items())
    network(Z.transpose(1, 2)).sum().backward()  # no tensor of inference mode is left in it


def test_a_result_is_shown_in_one_line(checkpoint, images):
    entropy = (result := estimate(images, load_tokenizer(checkpoint))).average.token_weighted
    low, high = entropy.assignment_entropy.ci95
    assert repr(result) == (
        f"Result('{checkpoint.name}', 70 images, A = {entropy.assignment_entropy.value:.4f} "
        f"({low:.4f} to {high:.4f}) nats per token)"
    )
    few = estimate([Z[:1]], itself, codebook=CODES, temperature=1)
    assert re.fullmatch(
        r"Result\('latents', 1 images, A = [0-9.]+ \(no interval\) nats per token\)", str(few)
    )


def test_type_checkers_see_the_package():
    """`mypy --strict` of a script needs the marker in what is installed, and annotations throughout."""
    root = Path(entropy_cli.__file__).parent
    assert (root / "py.typed").is_file()
    assert '"py.typed"' in (root.parent / "pyproject.toml").read_text()
    public = [getattr(entropy_cli, name) for name in entropy_cli.__all__]
    functions = [one for one in public if not inspect.isclass(one)]
    functions += [one for kind in public for one in vars(kind).values() if inspect.isfunction(one)]
    assert len(functions) > len(public)
    for function in functions:
        hints = typing.get_type_hints(function)
        assert hints.keys() == {*inspect.signature(function).parameters, "return"} - {"self"}


def test_the_package_imports_no_torch_and_has_no_other_names():
    code = "import sys, entropy_cli; dir(entropy_cli); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    public = [name for name in dir(entropy_cli) if not name.startswith("__")]
    assert public == sorted(entropy_cli.__all__) and "__version__" in dir(entropy_cli)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        entropy_cli.nothing  # noqa: B018
    assert all(callable(getattr(entropy_cli, name)) for name in entropy_cli.__all__)


def test_inputs_stay_as_they_are():
    z, codes = Z.clone().requires_grad_(), torch.nn.Parameter(CODES.clone())
    estimate([z], itself, codebook=codes)
    assert np.array_equal(z.detach(), Z) and np.array_equal(codes.detach(), CODES)
