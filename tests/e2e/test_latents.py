"""`estimate --latents`: the numbers, against the encoder's path and against the definitions."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from entropy_cli import load_tokenizer
from entropy_cli.entropy.assign import assign
from entropy_cli.images.decode import read_image
from entropy_cli.images.image_set import find_images
from entropy_cli.results.schema import read_result
from tests.e2e.test_estimate import assert_same
from tests.family_checkpoints import ASKED
from tests.reference import LEVELS, codes_of, reference

CODES = torch.randn(11, 3, generator=torch.Generator().manual_seed(2))
DEFAULTS = {"l2": 1, "cosine": "auto", "dot": 1, "sign": 0.01, "bsq": 0.01, "levels": 1 / 6}


def rests(tokenizer, pictures):
    """What is left at each scale, and its codes."""
    rest = tokenizer.encode(pictures)
    found = {}
    for s in range(len(tokenizer.spec.scales)):
        z_BlC = tokenizer.vectors(rest, s)
        codebook = tokenizer.codebook(s)
        found[f"z.{s}"], found[f"codes.{s}"] = z_BlC.contiguous(), codebook.codes_VC.clone()
        if s + 1 < len(tokenizer.spec.scales):
            rest = tokenizer.subtract(rest, assign(z_BlC, codebook, ()).idx_Bl, s)
    return found


def read_all(folder, tokenizer):
    images = find_images(folder)
    crop = tokenizer.spec.crop.apply
    return torch.stack([read_image(images.locate(i), crop) for i in range(len(images))])


@torch.inference_mode()
def test_residuals_of_several_scales_are_those_of_the_checkpoint(
    estimate, images, checkpoint, baseline, tmp_path
):
    tokenizer = load_tokenizer(checkpoint)
    tensors = rests(tokenizer, read_all(images, tokenizer))
    save_file(tensors, tmp_path / "z.safetensors")
    keys = ",".join(f"z.{s}" for s in range(4))
    result = estimate(
        *("--latents", f"{tmp_path}/z.safetensors:{keys}", "--temperature", 1),
        *("--codebook", f"{tmp_path}/z.safetensors:codes.0"),
    )
    for one, two in zip(result["scales"], baseline["scales"], strict=True):
        assert one["tokens"] == two["tokens"] and one["code_counts"] == two["code_counts"]
        for name in ("assignment_entropy", "varentropy", "marginal_entropy", "unigram_entropy"):
            assert one[name]["plug_in"] == pytest.approx(two[name]["plug_in"], abs=1e-5)
    assert [scale["name"] for scale in result["scales"]] == keys.split(",")
    assert result["tokenizer"]["patch_nums"] == [None] * 4  # (images, l, C) tells no grid


@pytest.mark.parametrize("name", ["vqgan", "rq_vae"])
@torch.inference_mode()
def test_golden_families(shared, estimate, tmp_path, name):
    """One scale, and RQ-VAE's depths with codes of their own."""
    folder = shared / "golden" / name
    expected = json.loads((folder / "expected.json").read_text())
    (checkpoint,) = folder.glob("ckpt.*")
    tokenizer = load_tokenizer(checkpoint, image_size=expected["resolution"])
    pixels = load_file(folder / "expected.safetensors")["pixels_u8"]
    tensors = rests(tokenizer, pixels)
    scales = len(tokenizer.spec.scales)
    save_file(tensors, tmp_path / "z.safetensors")
    files = {
        option: f"{tmp_path}/z.safetensors:" + ",".join(f"{kind}.{s}" for s in range(scales))
        for option, kind in (("--latents", "z"), ("--codebook", "codes"))
    }
    temperatures = list(next(iter(expected["scales"].values()))["soft"])
    options = [part for item in files.items() for part in item] + ["--channels", "last"]
    result = estimate(*options, "--rule", tokenizer.spec.rule, "--temperature", ",".join(temperatures))
    assert len(result["scales"]) == scales == len(expected["scales"])
    for s, of_scale in enumerate(expected["scales"].values()):
        assert result["scales"][s]["codes_used"] == of_scale["codes_used"]
        for at, soft in zip(result["temperatures"], of_scale["soft"].values(), strict=True):
            got = at["scales"][s]
            wanted = soft["conditional_entropy"], soft["marginal_entropy"]
            plug_ins = got["assignment_entropy"]["plug_in"], got["marginal_entropy"]["plug_in"]
            assert plug_ins == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    "name, rule", [("vqgan", "l2"), ("ibq", "dot"), ("llamagen", "cosine"), ("open_magvit2", "sign")]
)
def test_golden_latents(shared, estimate, tmp_path, name, rule):
    """The latents that the published code gave, in float64."""
    folder = shared / "golden" / name
    expected = json.loads((folder / "expected.json").read_text())
    latent_f64 = load_file(folder / "expected.safetensors")["latent_f64"]
    np.save(tmp_path / "z.npy", latent_f64.numpy())
    options = ["--latents", tmp_path / "z.npy", "--rule", rule]
    if rule != "sign":
        (checkpoint,) = folder.glob("ckpt.*")
        loaded = load_tokenizer(
            checkpoint, family=ASKED.get(name, "auto"), image_size=expected["resolution"]
        )
        codes_VC = loaded.codebook(0).codes_VC
        torch.save(codes_VC, tmp_path / "codes.pt")
        options += ["--codebook", tmp_path / "codes.pt"]
    (of_scale,) = expected["scales"].values()
    # Of signs the golden logits are 2 z.c / t, as the squared distance divided by t.
    result = estimate(*options, "--temperature", ",".join(of_scale["soft"]))
    assert result["scales"][0]["codes_used"] == of_scale["codes_used"]
    assert result["scales"][0]["unigram_entropy"]["plug_in"] == pytest.approx(
        of_scale["hard_marginal_entropy"], abs=1e-9
    )
    for at, soft in zip(result["temperatures"], of_scale["soft"].values(), strict=True):
        got = at["average"]["token_weighted"]
        assert got["assignment_entropy"]["plug_in"] == pytest.approx(
            soft["conditional_entropy"], abs=1e-5
        )
        assert got["marginal_entropy"]["plug_in"] == pytest.approx(soft["marginal_entropy"], abs=1e-5)


def of_rule(rule, tmp_path):
    """Latents of a rule, its codes and the options that say so."""
    z_MlC = torch.randn(40, 6, 3, generator=torch.Generator().manual_seed(3))
    code_VC, options = CODES.numpy(), []
    if rule == "levels":
        bounds = torch.tensor([[n // 2, (n - 1) // 2] for n in LEVELS]).T
        z_MlC = torch.maximum(torch.minimum(z_MlC, bounds[1] + 0.5), -bounds[0] - 0.5)
        options = ["--levels", ",".join(map(str, LEVELS))]
    if rule in ("sign", "bsq", "levels"):
        code_VC = codes_of(rule, dims=3)
        options += ["--channels", "last"]  # nothing else tells the number of bits
    else:
        np.save(tmp_path / "codes.npy", code_VC)
        options = ["--codebook", tmp_path / "codes.npy"]
    np.save(tmp_path / "z.npy", z_MlC.numpy())
    return z_MlC.numpy(), code_VC, ["--latents", tmp_path / "z.npy", "--rule", rule, *options]


@pytest.mark.parametrize("rule", ["l2", "cosine", "dot", "sign", "bsq", "levels"])
def test_each_rule_is_its_definition(estimate, tmp_path, rule):
    z_MlC, code_VC, options = of_rule(rule, tmp_path)
    result = estimate(*options, "--temperature", "0.7,0.1")
    for at, temperature in zip(result["temperatures"], (0.7, 0.1), strict=True):
        wanted = reference(z_MlC, code_VC, rule, temperature)
        (scale,) = at["scales"]
        for name in ("assignment_entropy", "marginal_entropy", "varentropy"):
            assert scale[name]["plug_in"] == pytest.approx(wanted[name], abs=1e-5), name
    (scale,) = result["scales"]
    assert scale["code_counts"] == wanted["counts"]
    assert scale["unigram_entropy"]["plug_in"] == pytest.approx(wanted["unigram_entropy"], abs=1e-9)
    assert result["tokenizer"]["vocab_size"] == len(code_VC)


@pytest.mark.parametrize("rule", ["l2", "cosine", "dot", "sign", "bsq", "levels"])
def test_defaults_and_what_the_result_says(cli, tmp_path, rule):
    _, _, options = of_rule(rule, tmp_path)
    code, out, err = cli("estimate", *options, "-o", tmp_path / "r.json", "--explain", "--workers", 0)
    assert code == 0, err
    result = read_result(tmp_path / "r.json")
    assert result.settings.temperature == DEFAULTS[rule]
    assert result.settings.temperature_source != "given with --temperature"
    assert result.settings.image_size is None and result.settings.precision == "fp32"
    assert (result.tokenizer.family, result.tokenizer.rule) == ("latents", rule)
    assert (result.tokenizer.checkpoint_sha256 is None) == (rule in ("sign", "bsq", "levels"))
    assert result.scales[0].name == "6 tokens" and result.tokenizer.patch_nums == [None]
    assert result.settings.preprocess == "none: given latents"
    assert "family latents" in out and "None" not in out and "nan" not in out
    a = result.average.token_weighted.assignment_entropy.known
    per_bit = f"compare it with {a / 3:.4f} nats per bit"
    assert (per_bit in " ".join(out.split())) == (rule in ("sign", "bsq"))


def test_the_rule_is_told_by_what_is_given(estimate, tmp_path):
    for rule in ("l2", "levels"):
        _, _, options = of_rule(rule, tmp_path)
        assert estimate(*[o for o in options if o not in ("--rule", rule)])["tokenizer"]["rule"] == rule


def test_the_function_gives_the_same(estimate, tmp_path):
    """Groups go by the images' numbers, in the order of the file."""
    from entropy_cli import estimate as function

    z_MlC, code_VC, options = of_rule("l2", tmp_path)
    result = function([torch.from_numpy(z_MlC)], lambda z: z, codebook=torch.from_numpy(code_VC))
    assert_same(json.loads(result.to_json()), estimate(*options), tolerance=1e-6)


@pytest.mark.parametrize(
    "rule, bits", [("bsq", 18), ("bsq", 19), ("bsq", 32), ("sign", 63), ("bsq", 64), ("sign", 100)]
)
def test_codes_that_are_very_many(cli, tmp_path, rule, bits):
    z_MlC = np.random.default_rng(0).normal(size=(6, 2, bits)).astype(np.float32)
    np.save(tmp_path / "z.npy", z_MlC)
    run = ("estimate", "--latents", tmp_path / "z.npy", "--rule", rule, "--channels", "last")
    code, out, err = cli(
        *run, "--workers", 0, "--temperature", "0.5,1", "--table", "--explain", "-o", tmp_path / "r.json"
    )
    assert code == 0, err
    result = read_result(tmp_path / "r.json")
    average = result.average.token_weighted
    assert result.tokenizer.vocab_size == 2**bits
    half = 1 if rule == "sign" else bits**-0.5
    z_NC = z_MlC.astype(np.float64).reshape(-1, bits)
    if rule == "bsq":
        z_NC /= np.linalg.norm(z_NC, axis=1, keepdims=True)
    p_NC = 1 / (1 + np.exp(-4 * half * z_NC / 0.5))
    h_NC = -p_NC * np.log(p_NC) - (1 - p_NC) * np.log1p(-p_NC)
    assert average.assignment_entropy.value == pytest.approx(h_NC.sum(1).mean(), abs=1e-5)
    p_C = p_NC.mean(0)
    bound = -(p_C * np.log(p_C) + (1 - p_C) * np.log1p(-p_C)).sum()
    assert average.marginal_entropy_bound.value == pytest.approx(bound, abs=1e-5)
    assert result.scales[0].code_counts is None
    if bits > 18:
        assert average.marginal_entropy.value is None and " - " in out
        assert "too many codes to count" in " ".join(out.split())
    else:
        assert result.scales[0].codes_used <= 12 and average.marginal_entropy.plug_in <= bound + 1e-9
    assert "NaN" not in (tmp_path / "r.json").read_text()
