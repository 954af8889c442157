"""An encoder in less than float32: what it costs is measured, and it is part of the settings."""

import pytest
import torch

from entropy_cli.entropy.assign import assign
from entropy_cli.images.decode import read_image
from entropy_cli.tokenizers.registry import load_tokenizer

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_cost_of_a_precision_is_measured_and_shown(
    cli, estimate, images, checkpoint, baseline, precision
):
    run = ("--data", images, "--ckpt", checkpoint, "--batch-size", 4, "--precision", precision)
    result = estimate(*run)
    check = result["precision_check"]
    assert result["settings"]["precision"] == precision
    assert result["data"]["fingerprint"] != baseline["data"]["fingerprint"]
    assert check["images"] == 64 and check["reference"] == "fp32"
    assert 0 < check["latent_relative_error"] < 0.05
    assert 0 <= check["tokens_changed_overall"] < 0.2
    got, exact = (
        r["average"]["token_weighted"]["assignment_entropy"]["value"] for r in (result, baseline)
    )
    assert got != exact and got == pytest.approx(exact, abs=0.01)
    assert got - exact == pytest.approx(check["assignment_entropy_difference_token_weighted"], abs=0.002)
    _, out, _ = cli("estimate", *run, "--workers", 0, "--explain")
    assert "against fp32" in out and "64 images" in out


def test_float32_needs_no_check(baseline):
    assert baseline["precision_check"] is None and baseline["settings"]["precision"] == "fp32"


def test_the_check_agrees_with_a_plain_comparison(estimate, images, checkpoint):
    """From the pictures, image by image."""
    result = estimate("--data", images, "--ckpt", checkpoint, "--limit", 10, "--precision", "bf16")
    check = result["precision_check"]
    from entropy_cli.images.image_set import find_images

    found = find_images(images, limit=10)
    tokenizer = load_tokenizer(checkpoint).tokenizer
    exact, rounded = tokenizer.to(CPU, "fp32"), tokenizer.to(CPU, "bf16")
    changed_S, tokens_S = torch.zeros(4), torch.tensor([1, 4, 16, 64])
    entropies_2S, latents = torch.zeros(2, 4).double(), []
    for i in range(10):
        img_B3HW = read_image(found.locate(i), tokenizer.spec.crop.apply)[None]
        both = []
        for k, of in enumerate((exact, rounded)):
            rest, idx = of.encode(img_B3HW), []
            latents.append(rest.double())
            for s in range(len(of.spec.scales)):
                sums = assign(of.vectors(rest, s), of.codebook(s), (1.0,))
                entropies_2S[k, s] += sums.entropy_BT.item()
                idx.append(sums.idx_Bl)
                if s + 1 < len(of.spec.scales):
                    rest = of.subtract(rest, sums.idx_Bl, s)
            both.append(torch.cat(idx, 1))
        changed_L = (both[0] != both[1])[0]
        changed_S += torch.stack([part.sum() for part in changed_L.split(tokens_S.tolist())])
    tokens = 10 * tokens_S.sum().item()
    assert check["images"] == 10
    assert changed_S.sum() > 0
    assert check["tokens_changed"] == pytest.approx((changed_S / (10 * tokens_S)).tolist())
    assert check["tokens_changed_overall"] == pytest.approx(changed_S.sum().item() / tokens)
    assert check["assignment_entropy_difference_token_weighted"] == pytest.approx(
        (entropies_2S[1] - entropies_2S[0]).sum().item() / tokens, abs=1e-6
    )
    difference_S = (entropies_2S[1] - entropies_2S[0]) / (10 * tokens_S)
    assert check["assignment_entropy_difference"] == pytest.approx(difference_S.tolist(), abs=1e-6)
    exact_latents, rounded_latents = torch.cat(latents[::2]), torch.cat(latents[1::2])
    error = rounded_latents - exact_latents
    assert check["latent_largest_error"] == pytest.approx(error.abs().max().item(), rel=0.02)
    expected = (error.norm() / exact_latents.norm()).item()
    assert check["latent_relative_error"] == pytest.approx(expected, rel=0.02)


def test_under_auto_the_check_reports_by_how_much_two_runs_differ(estimate, images, checkpoint):
    """Each with the temperatures that are fitted to its own latents."""
    run = ("--data", images, "--ckpt", checkpoint, "--limit", 64, "--batch-size", 16)
    run += ("--temperature", "auto", "--precision")
    exact, rounded = (estimate(*run, precision) for precision in ("fp32", "bf16"))
    check = rounded["precision_check"]
    a, b = (r["average"]["token_weighted"]["assignment_entropy"]["value"] for r in (exact, rounded))
    assert check["images"] == 64 and abs(b - a) > 1e-5
    assert check["assignment_entropy_difference_token_weighted"] == pytest.approx(b - a, abs=1e-6)
    of_scales = [
        after["assignment_entropy"]["value"] - before["assignment_entropy"]["value"]
        for before, after in zip(exact["scales"], rounded["scales"], strict=True)
    ]
    assert check["assignment_entropy_difference"] == pytest.approx(of_scales, abs=1e-6)
    temperatures = [[scale["temperature"] for scale in r["scales"]] for r in (exact, rounded)]
    assert temperatures[0] != temperatures[1]


def test_bf16_is_refused_where_a_gpu_lacks_it(cli, images, checkpoint, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.set_device", lambda _: None)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (7, 5))
    code, _, err = cli("estimate", "--data", images, "--ckpt", checkpoint, "--precision", "bf16")
    assert code == 3 and err.splitlines()[-1] == (
        "error: --precision bf16: cuda:0 has no bfloat16, NVIDIA GPUs from Ampere on have. "
        "Use fp16 or fp32."
    )


def test_tf32_is_a_gpu_s(cli, images, checkpoint):
    code, _, err = cli(
        "estimate", "--data", images, "--ckpt", checkpoint, "--device", "cpu", "--precision", "tf32"
    )
    assert code == 3 and "has no TF32" in err and "bf16" in err


def test_a_latent_out_of_a_precision_s_range_is_named(cli, images, weights, tmp_path):
    from safetensors.torch import save_file

    large = {**weights, "encoder.conv_in.weight": weights["encoder.conv_in.weight"] * 1e6}
    save_file(large, tmp_path / "large.safetensors")
    run = ("estimate", "--data", images, "--ckpt", tmp_path / "large.safetensors", "--workers", 0)
    run += ("--image-size", 32, "--patch-nums", "1,2,4,8", "--precision", "fp16")
    code, _, err = cli(*run)
    assert code == 3 and "NaN or infinite" in err and "--precision" in err
