"""One contract for every family, on tiny checkpoints under its published names."""

import itertools
import math
import pickle
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.assign import assign
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.registry import (
    FAMILIES,
    find_family,
    load_tokenizer,
    match_family,
    reasons_against,
)
from entropy_cli.tokenizers.settings import TokenizerSettings
from tests.family_checkpoints import EXAMPLES, random_weights, rq_shapes
from tests.newer_layouts import cosmos_shapes

TEMPERATURES = (0.5, 2.0)
by_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def weights():
    return {name: random_weights(example.shapes) for name, example in EXAMPLES.items()}


@pytest.fixture(scope="module")
def pixels():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (3, 3, 16, 16), generator=generator, dtype=torch.uint8)


@pytest.fixture
def load(tmp_path):
    """Save a state dict, or what wraps one, and load it as a family's example is loaded."""

    def load(name, state, family=None, **settings):
        path = tmp_path / "x.pt"
        torch.save(state, path)
        given = {**vars(EXAMPLES[name].settings), **settings}
        family = family or EXAMPLES[name].family
        return load_tokenizer(path, family, TokenizerSettings(**given)).tokenizer

    return load


@pytest.fixture(scope="module")
def tokenizers(weights, tmp_path_factory):
    """Of every family, as auto finds it where it can."""
    found, folder = {}, tmp_path_factory.mktemp("families")
    for name, state in weights.items():
        save_file(state, folder / f"{name}.safetensors")
        example = EXAMPLES[name]
        found[name] = load_tokenizer(folder / f"{name}.safetensors", example.family, example.settings)
    return {name: loaded.tokenizer for name, loaded in found.items()}


@torch.no_grad()
def walk(tokenizer, pixels):
    """Vectors and sums at every scale."""
    rest_BChw, found = tokenizer.encode(pixels), []
    for s in range(len(tokenizer.spec.scales)):
        z_BlC = tokenizer.vectors(rest_BChw, s)
        sums = assign(z_BlC, tokenizer.codebook(s), TEMPERATURES)
        found.append((z_BlC, sums))
        if s + 1 < len(tokenizer.spec.scales):
            rest_BChw = tokenizer.subtract(rest_BChw, sums.idx_Bl, s)
    return found


def vectors(tokenizer, pixels):
    return [z_BlC for z_BlC, _ in walk(tokenizer, pixels)]


def close(one, other, atol=0.0):
    for z, other_z in zip(one, other, strict=True):
        torch.testing.assert_close(z, other_z, atol=atol, rtol=0)
    return True


def test_every_family_has_an_example():
    assert EXAMPLES.keys() == FAMILIES.keys()


@by_family
def test_it_is_found_and_no_other_fits(tmp_path, weights, name):
    save_file(weights[name], tmp_path / "x.safetensors")
    family, settings = EXAMPLES[name].family, EXAMPLES[name].settings
    found = find_family(tmp_path / "x.safetensors", family, settings)
    assert found.name == name
    if family != "auto":
        with pytest.raises(CheckpointError, match=rf"fits \w+ and {name}, .* Choose with --family"):
            find_family(tmp_path / "x.safetensors", settings=settings)
        return
    against = reasons_against(found.checkpoint)
    assert [other for other, reasons in against.items() if not reasons] == [name]
    assert not reasons_against(found.checkpoint)[name]
    assert (
        found.describe() == load_tokenizer(tmp_path / "x.safetensors", settings=settings).tokenizer.spec
    )


# The copy that the authors evaluate where a checkpoint holds an average beside the raw weights.
EMA = ("var", "llamagen", "ibq", "open-magvit2", "rq-vae")
LABELS = {"rq-vae": "soft", "diffusers": "unknown"}  # what models are trained on, where not "hard"


@by_family
def test_the_copy_of_the_weights_is_the_one_that_its_authors_evaluate(tmp_path, weights, name):
    averaged = {key: weight * 1.1 for key, weight in weights[name].items()}
    torch.save({"model": weights[name], "ema": averaged}, tmp_path / "x.pt")
    family, settings = EXAMPLES[name].family, EXAMPLES[name].settings
    found = find_family(tmp_path / "x.pt", family, settings).checkpoint
    assert (found.copies, found.weights) == (["raw", "ema"], "ema" if name in EMA else "raw")


@by_family
def test_the_spec_is_complete(tokenizers, name):
    spec, example = tokenizers[name].spec, EXAMPLES[name]
    assert (spec.family, spec.rule, spec.temperature) == (name, example.rule, example.temperature)
    assert spec.labels == LABELS.get(name, "hard")
    assert tuple((scale.name, scale.tokens, scale.patch_num) for scale in spec.scales) == example.scales
    assert {scale.vocabulary.size for scale in spec.scales} == {spec.vocab_size} == {example.vocab_size}
    assert (spec.latent_dim, spec.image_size) == (example.latent_dim, 16)
    assert spec.preprocess == f"{example.crop}, pixels to {example.pixels}"
    assert len(spec.temperature_source) > 20


@by_family
def test_shapes_and_types_at_every_scale(tokenizers, pixels, name):
    tokenizer = tokenizers[name]
    rest_BChw = tokenizer.encode(pixels)
    for s, scale in enumerate(tokenizer.spec.scales):
        z_BlC = tokenizer.vectors(rest_BChw, s)
        assert z_BlC.shape == (3, scale.tokens, tokenizer.spec.latent_dim)
        assert z_BlC.dtype == torch.float32 and z_BlC.isfinite().all() and z_BlC.std() > 0.1
        assert tokenizer.codebook(s).vocabulary == scale.vocabulary
        sums = assign(z_BlC, tokenizer.codebook(s), TEMPERATURES)
        assert sums.idx_Bl.shape == (3, scale.tokens) and sums.idx_Bl.dtype == torch.int64
        assert sums.soft_BTE.shape == (3, 2, scale.vocabulary.entries)
        assert s == 0 or len(sums.idx_Bl.unique()) > 1
        if s + 1 < len(tokenizer.spec.scales):
            left_BChw = tokenizer.subtract(rest_BChw, sums.idx_Bl, s)
            assert left_BChw.shape == rest_BChw.shape and left_BChw.dtype == torch.float32
            assert torch.equal(left_BChw, rest_BChw) != tokenizer.spec.is_residual
            rest_BChw = left_BChw


@by_family
def test_latents_do_not_depend_on_the_batch(tokenizers, pixels, name):
    alone = [vectors(tokenizers[name], pixels[b : b + 1]) for b in range(3)]
    together = [torch.cat(of_scale) for of_scale in zip(*alone, strict=True)]
    assert close(together, vectors(tokenizers[name], pixels), atol=1e-4)


@by_family
def test_other_precisions_are_near(load, weights, tokenizers, pixels, name):
    tokenizer = load(name, weights[name])
    half = tokenizer.to(torch.device("cpu"), "bf16")
    exact, rounded = vectors(tokenizers[name], pixels[:1])[0], vectors(half, pixels[:1])[0]
    assert rounded.dtype == torch.float32
    assert 1e-6 < (exact - rounded).abs().max() < 0.1 * exact.abs().max()


@by_family
def test_its_crop_goes_to_the_workers(tokenizers, name):
    crop = pickle.loads(pickle.dumps(tokenizers[name].spec.crop.apply))
    for mode, size in (("RGB", (50, 33)), ("L", (16, 16)), ("RGBA", (9, 70))):
        cropped = crop(Image.new(mode, size))
        assert (cropped.mode, cropped.size) == ("RGB", (16, 16))


@by_family
def test_every_way_of_storing_it_gives_the_same(load, weights, tokenizers, pixels, name):
    expected = vectors(tokenizers[name], pixels)
    state = weights[name]
    beside = {
        "loss.discriminator.main.3.num_batches_tracked": torch.tensor(7),
        "loss.logvar": torch.tensor(0.0),
        "decoder.conv_in.weight": torch.full((2, 2, 3, 3), torch.nan),
        "post_quant_conv.weight": torch.ones(2, 2, 1, 1),
        "step": 5,
    }
    assert close(vectors(load(name, {**state, **beside}), pixels), expected)
    for prefix in ("module.", "_orig_mod.module.", "first_stage_model.", "vq_model."):
        named = {prefix + key: weight for key, weight in state.items()}
        assert close(vectors(load(name, named), pixels), expected)
    for wrapper in ("model", "state_dict"):
        assert close(vectors(load(name, {wrapper: state, "epoch": 3}), pixels), expected)
    half = {key: weight.half() for key, weight in state.items()}
    assert close(
        vectors(load(name, half), pixels),
        vectors(load(name, {key: weight.float() for key, weight in half.items()}), pixels),
    )


@by_family
def test_a_missing_weight_is_named(weights, name):
    """Or what is left over of its block."""
    free = ("_ema", "decoder.ffn.2.weight", "codebooks.2.weight")  # fewer depths are a tokenizer
    free += (".lfq.mask", "quantize.power_vals")  # constants
    for missing in (key for key in weights[name] if not key.endswith(free)):
        inner = re.sub(r"(\.\w+)\.(conv|norm)(\.\w+)$", r"\1\3", missing)  # of a wrapper
        layer = inner.rpartition(".")[0].rpartition(".")[0]
        block = re.match(r"(.*\.\d+)?", missing)[0] or layer
        state = {key: weight for key, weight in weights[name].items() if key != missing}
        words = [rf"got ({re.escape(layer)}|{re.escape(block)})\.", rf"lacks .*{re.escape(missing)}"]
        words += [r"lacks \S+(weight|bias|running_\w+), or its name in this family"]
        words += [f"{re.escape(missing)} is missing"]
        words += ["sizes contradict"] if "nin_shortcut" in missing else []
        words += ["its shortcut does not"] if "id_path" in missing else []
        words += [r"got blocks\.group_2\."] if missing.startswith("blocks.group_2") else []
        checkpoint = Checkpoint.of_tensors(Path("x"), state)
        with pytest.raises(CheckpointError, match="|".join(words)):
            match_family(checkpoint, EXAMPLES[name].family, EXAMPLES[name].settings).describe()


@by_family
@pytest.mark.parametrize("surplus", ["encoder.extra.weight", "encoder.down.7.block.0.conv1.weight"])
def test_a_surplus_weight_is_named(load, weights, name, surplus):
    with pytest.raises(CheckpointError, match=f"got {re.escape(surplus)}"):
        load(name, weights[name] | {surplus: torch.zeros(4, 4, 1, 1)})


@by_family
def test_weights_that_are_not_finite_are_named(load, weights, name):
    keys = list(weights[name])
    for broken in (
        keys[0],
        *(key for key in keys if "embedding.weight" in key or "codebooks.1.w" in key),
    ):
        for value in (math.nan, math.inf):
            damaged = weights[name][broken].clone()
            damaged.view(-1)[-1] = value
            with pytest.raises(CheckpointError, match=f"{re.escape(broken)} holds NaN or infinity"):
                load(name, weights[name] | {broken: damaged})


# What is alike but for the rule can be forced; everything else is refused by what it lacks, or has.
ALIKE = {("vqgan", "ibq"), ("ibq", "vqgan"), ("llamagen", "flexvar"), ("flexvar", "llamagen")}


@by_family
@pytest.mark.parametrize("forced", FAMILIES)
def test_another_family_by_force(load, weights, name, forced):
    if name == forced or (name, forced) in ALIKE:
        patch_nums = EXAMPLES[forced].settings.patch_nums
        assert load(name, weights[name], forced, patch_nums=patch_nums).spec.family == forced
    else:
        with pytest.raises(CheckpointError, match=rf"not of family {forced}: lacks|got quantizer?\."):
            load(name, weights[name], forced)


@by_family
def test_image_sizes_that_do_not_fit(load, weights, name):
    fixed = dict.fromkeys(("titok", "vq-kd"), "for images of 16 pixels")
    words = fixed.get(name, "Give --image-size 16 or 18")
    with pytest.raises(CheckpointError, match=words):
        load(name, weights[name], image_size=17)


def written_out(rule, z, codes):
    """Logits of each code, in plain numbers."""
    if rule in ("cosine", "bsq"):
        z, *codes = ([x / math.hypot(*row) for x in row] for row in (z, *codes))
    if rule in ("dot", "logits"):
        return [sum(x * e for x, e in zip(z, code, strict=True)) for code in codes]
    return [-sum((x - e) ** 2 for x, e in zip(z, code, strict=True)) for code in codes]


def corners(bits, *, first_is_most):
    """Codes of signs; of itertools the first dimension is the most significant."""
    codes = itertools.product((-1.0, 1.0), repeat=bits)
    return [code if first_is_most else code[::-1] for code in codes]


def soft(logits, temperature):
    """Probabilities, entropy and varentropy."""
    top = max(logits)
    weights = [math.exp((logit - top) / temperature) for logit in logits]
    q = [weight / sum(weights) for weight in weights]
    surprises = [-(logit - top) / temperature + math.log(sum(weights)) for logit in logits]
    H = sum(p * x for p, x in zip(q, surprises, strict=True))
    return q, H, sum(p * (x - H) ** 2 for p, x in zip(q, surprises, strict=True))


@by_family
def test_assignment_against_plain_numbers(tokenizers, weights, pixels, name):
    example = EXAMPLES[name]
    for s, (z_BlC, sums) in enumerate(walk(tokenizers[name], pixels)):
        if example.rule in ("sign", "bsq"):
            codes = corners(example.latent_dim, first_is_most=example.first_is_most)
        elif example.rule == "levels":
            return  # too many to write out; see test_newer_families
        else:
            key = f"quantizer.codebooks.{s}.weight" if name == "rq-vae" else example.codes
            codes = weights[name][key].flatten(1).double().tolist()[: example.vocab_size]
        logits = [written_out(example.rule, z, codes) for z in z_BlC[0].double().tolist()]
        if example.rule == "logits":
            bias = weights[name][example.codes.replace(".w", ".b")].double().tolist()
            logits = [[x + b for x, b in zip(row, bias, strict=True)] for row in logits]
        for idx, row in zip(sums.idx_Bl[0].tolist(), logits, strict=True):
            best, second = sorted(row)[:-3:-1]
            assert idx == row.index(best) or best - second < 1e-5
        for t, temperature in enumerate(TEMPERATURES):
            q, H, varentropy = zip(*(soft(row, temperature) for row in logits), strict=True)
            marginal = [sum(column) for column in zip(*q, strict=True)]
            assert sums.entropy_BT[0, t].item() == pytest.approx(sum(H), rel=1e-5)
            assert sums.varentropy_BT[0, t].item() == pytest.approx(sum(varentropy), rel=1e-4)
            assert sums.soft_BTE[0, t].tolist() == pytest.approx(marginal, abs=1e-4)


@by_family
def test_inspect_describes_it(cli, tmp_path, weights, name):
    torch.save(weights[name], tmp_path / "x.pt")
    example = EXAMPLES[name]
    options = ["--family", example.family] if example.family != "auto" else []
    if example.settings.image_size:
        options += ["--image-size", example.settings.image_size]
    if example.settings.patch_nums:
        options += ["--patch-nums", ",".join(map(str, example.settings.patch_nums))]
    code, out, _ = cli("inspect", tmp_path / "x.pt", *options)
    assert code == 0 and f"family       {name}" in out
    if name not in ("titok", "dall-e", "vq-kd"):  # not of the shared encoder
        side = 16 // (example.scales[-1][2] or 8)
        assert f"convolutional, 2 levels; {side} x {side} pixels per latent" in out


def test_inspect_says_how_many_codebooks_it_leaves_out(cli, tmp_path):
    torch.save(random_weights(rq_shapes(sizes=(40,) * 9)), tmp_path / "x.pt")
    code, out, _ = cli("inspect", tmp_path / "x.pt", "--image-size", 16)
    assert code == 0 and len(out.splitlines()) <= 23
    shown = sum(bool(re.match(r"\d +40 ", line)) for line in out.splitlines())
    assert 0 < shown < 9 and f"and {9 - shown} more: --table" in out


def test_inspect_takes_the_levels_that_a_file_does_not_tell(cli, tmp_path):
    torch.save(random_weights(cosmos_shapes(levels=3)), tmp_path / "x.pt")
    options = ("--family", "cosmos", "--image-size", 16)
    assert cli("inspect", tmp_path / "x.pt", *options)[0] == 3
    code, out, _ = cli("inspect", tmp_path / "x.pt", *options, "--levels", "4,3,7", "--table")
    assert code == 0 and "each one of 84 codes" in out and "unless --levels is given" in out
