"""Every golden checkpoint against what the family's published code makes of it, in float64."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.assign import assign
from entropy_cli.entropy.entropy import entropy
from entropy_cli.tokenizers.precision import matmul_precision
from entropy_cli.tokenizers.registry import load_tokenizer
from entropy_cli.tokenizers.settings import TokenizerSettings
from tests.family_checkpoints import ASKED, GOLDEN, REFUSED, golden_checkpoint

GAP = 1e-4  # of the best two logits, below which float32 may choose the other
MOST_ENTRIES = 2**21  # tokens by codes


def test_every_folder_is_tested(shared):
    folders = {folder.name for folder in (shared / "golden").iterdir() if folder.is_dir()}
    assert folders == GOLDEN.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_by_name(shared, name):
    folders = [shared / "golden" / name]
    if name == "generators":  # the third is a training of VAR, which holds a part of its tokenizer
        folders = [folders[0] / "llamagen_gpt", folders[0] / "var_d4"]
    for folder in folders:
        path = golden_checkpoint(folder) if name != "generators" else next(folder.glob("*.p*"))
        with pytest.raises(CheckpointError, match=f"looks like .*{re.escape(REFUSED[name])}"):
            load_tokenizer(path)


def test_a_generator_with_a_part_of_its_tokenizer_is_named(shared):
    with pytest.raises(CheckpointError, match="autoregressive transformer"):
        load_tokenizer(shared / "golden" / "generators" / "var_saln" / "ar-ckpt-last.pth")


@pytest.mark.parametrize("name", ASKED)
def test_what_fits_two_families_has_to_be_asked_for(shared, name):
    with pytest.raises(CheckpointError, match=rf"fits .*{ASKED[name]}.*Choose with --family"):
        load_tokenizer(golden_checkpoint(shared / "golden" / name))


@pytest.mark.parametrize("name", GOLDEN)
@torch.no_grad()
def test_golden(shared, name):
    check_golden(shared, name)


@pytest.mark.parametrize("name", ["var_l2", "llamagen"])
@pytest.mark.usefixtures("two_threads")
@torch.no_grad()
def test_golden_on_two_threads(shared, name):
    check_golden(shared, name)


def check_golden(shared, name):
    tokenizer, expected, arrays = opened(shared / "golden" / name)
    spec = tokenizer.spec
    assert (spec.family, spec.rule) == GOLDEN[name]
    assert spec.vocab_size == (expected.get("vocab_size") or 2 ** expected["bits"])
    assert spec.latent_dim == arrays["latent_f64"].shape[1]
    assert len(spec.scales) == len(expected["scales"])

    rest_BChw = tokenizer.encode(arrays["pixels_u8"])
    torch.testing.assert_close(rest_BChw.double(), arrays["latent_f64"], atol=1e-4, rtol=0)
    for s, of_scale in enumerate(expected["scales"].values()):
        z_BlC, idx_Bl = tokenizer.vectors(rest_BChw, s), arrays[f"idx.s{s}"].flatten(1).long()
        assert z_BlC.shape[:2].numel() == of_scale["tokens"]
        codebook = tokenizer.codebook(s)
        sums = assign(z_BlC, codebook, [float(t) for t in of_scale["soft"]])
        other_Bl = sums.idx_Bl != idx_Bl
        if of_scale.get("argmax_gap_min", of_scale.get("bit_gap_min")) > GAP:
            assert not other_Bl.any()
            assert (sums.counts_BE.sum(0) > 0).sum() == of_scale["codes_used"]
        else:
            assert not (other_Bl & (gaps(z_BlC, codebook) > GAP)).any()
        check_soft(sums, codebook, of_scale, arrays, s)
        check_tokens(z_BlC, codebook, of_scale, arrays, s)
        if s + 1 < len(spec.scales):
            rest_BChw = tokenizer.subtract(rest_BChw, idx_Bl, s)


def opened(folder):
    """The tokenizer, and what is expected of it."""
    expected = json.loads((folder / "expected.json").read_text())
    patch_nums = expected.get("patch_nums") and tuple(expected["patch_nums"])
    rule = "cosine" if expected.get("cosine") else None  # which a VAR checkpoint does not tell
    settings = TokenizerSettings(expected["resolution"], patch_nums, rule)
    loaded = load_tokenizer(golden_checkpoint(folder), ASKED.get(folder.name, "auto"), settings)
    return loaded.tokenizer, expected, load_file(folder / "expected.safetensors")


def gaps(z_BlC, codebook):
    """Of the best two logits, in float64."""
    if codebook.rule in ("sign", "bsq"):
        return 4 * codebook.end_2C[1, 0] * codebook.prepared(z_BlC).abs().amin(2)
    z_BlC, codes_VC = z_BlC.double(), codebook.codes_VC.double()
    if codebook.rule == "cosine":
        z_BlC, codes_VC = (x / x.square().sum(-1, keepdim=True).sqrt() for x in (z_BlC, codes_VC))
    logit_BlV = torch.einsum("blc,vc->blv", z_BlC, codes_VC)
    if codebook.rule in ("l2", "cosine"):
        logit_BlV = 2 * logit_BlV - codes_VC.square().sum(1)
    if codebook.rule == "logits":
        logit_BlV = logit_BlV + codebook.bias_V
    best, second = logit_BlV.topk(2).values.unbind(2)
    return best - second


def check_soft(sums, codebook, of_scale, arrays, s):
    for t, (temperature, soft) in enumerate(of_scale["soft"].items()):
        conditional = sums.entropy_BT[:, t].sum().item() / of_scale["tokens"]
        assert conditional == pytest.approx(soft["conditional_entropy"], abs=1e-5)
        marginal_V = sums.soft_BTE[:, t].sum(0)
        assert entropy(marginal_V).item() == pytest.approx(soft["marginal_entropy"], abs=1e-5)
        found, name = marginal_V / of_scale["tokens"], f"marginal.s{s}.tau{temperature}"
        if name not in arrays:  # of bits, the first dimension first
            name, found = f"bit_{name}", shares_of_bits(found, codebook)
        torch.testing.assert_close(found, arrays[name], atol=5e-6, rtol=0)


def shares_of_bits(marginal_V, codebook):
    """The probability of one in each dimension."""
    axes = codebook.latent_dim
    marginal = marginal_V.view((2,) * axes)  # the most significant first
    ones = [marginal.select(axis, 1).sum() for axis in range(axes)]
    return torch.stack([ones[list(codebook.significance).index(c)] for c in range(axes)])


def check_tokens(z_BlC, codebook, of_scale, arrays, s):
    """Each token's own entropy; of some where every code would be counted for each."""
    step = 1 + len(z_BlC.flatten(0, 1)) * codebook.vocabulary.entries // MOST_ENTRIES
    for temperature in of_scale["soft"]:
        z_N1C = z_BlC.flatten(0, 1)[::step, None]
        entropy_N1 = assign(z_N1C, codebook, [float(temperature)]).entropy_BT
        expected_N = arrays[f"token_entropy.s{s}.tau{temperature}"].flatten().double()[::step]
        atol = 1e-4 / float(temperature)  # what rounding moves latents is divided by it
        torch.testing.assert_close(entropy_N1[:, 0], expected_N, atol=atol, rtol=0)


# Between which the relative error of the latents lies, the most by which an entropy is off in nats, and
# the share of tokens that may change: each about three times the most on the pretended device.
ROUNDED = {
    "fp32": ((0, 2e-5), 1e-5, 0),
    "tf32": ((5e-4, 0.012), 2e-3, 0.04),
    "fp16": ((5e-4, 0.02), 5e-3, 0.08),
    "bf16": ((0.01, 0.15), 0.05, 0.3),
}


# Other precisions change no layer by family: one with several scales, and one without.
ROUNDED_TOO = ("var_l2", "llamagen")
PRECISIONS = [(name, of) for name in GOLDEN for of in ROUNDED if of == "fp32" or name in ROUNDED_TOO]


@pytest.mark.parametrize(("name", "precision"), PRECISIONS)
@torch.no_grad()
def test_golden_on_a_gpu(shared, gpu_device, name, precision):
    """In float32 only near ties are chosen otherwise; the encoder's rounding stays the encoder's."""
    (least, most), off, share = ROUNDED[precision]
    tokenizer, expected, arrays = opened(shared / "golden" / name)
    tokenizer = tokenizer.to(gpu_device, precision)
    with matmul_precision(tf32=False):
        rest_BChw = tokenizer.encode(arrays["pixels_u8"].to(gpu_device))
        exact_BChw = arrays["latent_f64"]
        assert least <= (rest_BChw.cpu() - exact_BChw).norm() / exact_BChw.norm() <= most
        changed = tokens = 0
        for s, of_scale in enumerate(expected["scales"].values()):
            z_BlC, idx_Bl = tokenizer.vectors(rest_BChw, s), arrays[f"idx.s{s}"].flatten(1).long()
            sums = assign(z_BlC, tokenizer.codebook(s), [float(t) for t in of_scale["soft"]])
            other_Bl = sums.idx_Bl.cpu() != idx_Bl
            if precision == "fp32":
                other_Bl &= gaps(z_BlC.cpu(), tokenizer.codebook(s).to(torch.device("cpu"))) > GAP
            changed, tokens = changed + other_Bl.sum().item(), tokens + idx_Bl.numel()
            entropy_T = sums.entropy_BT.sum(0).cpu() / of_scale["tokens"]
            soft = [soft["conditional_entropy"] for soft in of_scale["soft"].values()]
            assert entropy_T.tolist() == pytest.approx(soft, abs=off)
            if s + 1 < len(tokenizer.spec.scales):
                rest_BChw = tokenizer.subtract(rest_BChw, idx_Bl.to(gpu_device), s)
        assert changed <= share * tokens
