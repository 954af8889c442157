"""`entropy-cli estimate` from the command line: numbers, invariances, files, exit codes."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from entropy_cli.entropy.quantity import QUANTITIES
from entropy_cli.results.schema import from_dict
from tests.conftest import PATCH_NUMS

AVERAGES = ("token_weighted", "over_scales", "last_scale")


def assert_same(one, two, *, counts_equal=True, tolerance=1e-9):
    """Two results agree: counts exactly, entropies within the tolerance."""
    assert one["data"]["images_used"] == two["data"]["images_used"]
    for a, b in zip(one["scales"], two["scales"], strict=True):
        if counts_equal:
            assert a["code_counts"] == b["code_counts"]
        for name in QUANTITIES:
            for key in ("value", "plug_in", "se"):
                assert a[name][key] == pytest.approx(b[name][key], abs=tolerance), (a["name"], name, key)
    for kind in AVERAGES:
        for name in QUANTITIES:
            left, right = one["average"][kind][name], two["average"][kind][name]
            assert left["value"] == pytest.approx(right["value"], abs=tolerance)


def test_the_result_is_whole_and_its_numbers_fit_together(baseline):
    result = baseline
    assert result["schema"] == "entropy-cli/estimate" and result["schema_version"] == 2
    assert result["units"] == "nats per token"
    assert result["provenance"]["command"].startswith("entropy-cli estimate --json --workers 0 --data ")
    assert result["tokenizer"]["patch_nums"] == list(PATCH_NUMS)
    assert (result["tokenizer"]["vocab_size"], result["tokenizer"]["rule"]) == (48, "l2")
    assert result["data"]["images_used"] == result["data"]["images_found"] == 70
    assert result["settings"]["temperature"] == 1 and result["settings"]["groups"] == 32
    assert "LANCZOS" in result["settings"]["preprocess"]
    tokens = [scale["tokens"] for scale in result["scales"]]
    assert tokens == [n * n for n in PATCH_NUMS]
    for scale in result["scales"]:
        assert sum(scale["code_counts"]) == 70 * scale["tokens"]
        assert scale["codes_used"] == sum(1 for n in scale["code_counts"] if n)
        assert scale["usage"] == scale["codes_used"] / 48
        for name in QUANTITIES:
            estimate = scale[name]
            assert {"value", "plug_in", "se", "ci95", "estimator"} <= set(estimate)
            if estimate["ci95"]:
                assert estimate["ci95"][0] <= estimate["value"] <= estimate["ci95"][1]
            else:
                assert estimate["note"]
        assert (
            0
            <= scale["assignment_entropy"]["value"]
            <= scale["marginal_entropy"]["plug_in"]
            <= math.log(48)
        )
        assert scale["unigram_entropy"]["plug_in"] == pytest.approx(
            -sum(
                n / 70 / scale["tokens"] * math.log(n / 70 / scale["tokens"])
                for n in scale["code_counts"]
                if n
            )
        )
    values = [scale["assignment_entropy"]["value"] for scale in result["scales"]]
    average = {kind: result["average"][kind]["assignment_entropy"]["value"] for kind in AVERAGES}
    assert average["over_scales"] == pytest.approx(sum(values) / 4)
    assert average["token_weighted"] == pytest.approx(
        sum(n * v for n, v in zip(tokens, values, strict=True)) / sum(tokens)
    )
    assert average["last_scale"] == values[-1]
    assert [at["temperature"] for at in result["temperatures"]] == [1, "auto"]
    assert result["tokenizer"]["labels"] == "hard"
    pooled = result["pooled"]
    assert 0 < pooled["unigram_entropy"]["value"] <= math.log(48) and 0 < pooled["usage"]["value"] <= 1
    assert {check["severity"] for check in result["checks"]} <= {"ok", "care", "wrong"}
    last = result["history"][-1]
    assert last["images"] == 70 and last["value"] == pytest.approx(average["token_weighted"])
    assert [entry["images"] for entry in result["history"]] == [16, 32, 64, 70]
    assert len(result["replicates"]["assignment_entropy"]) == 32
    assert sum(result["replicates"]["images"]) == 70
    assert from_dict(result).data.images_used == 70


@pytest.mark.parametrize("name", ["var_l2", "var_cosine"])
def test_golden_from_the_photographs_to_the_json(shared, estimate, name):
    folder = shared / "golden" / name
    expected = json.loads((folder / "expected.json").read_text())
    temperatures = list(next(iter(expected["scales"].values()))["soft"])
    result = estimate(
        *("--data", folder / "images", "--ckpt", folder / "ckpt.safetensors"),
        *("--image-size", expected["resolution"], "--temperature", ",".join(temperatures)),
        *("--patch-nums", ",".join(map(str, expected["patch_nums"]))),
        *("--rule", "cosine" if expected["cosine"] else "l2"),
    )
    assert [t["temperature"] for t in result["temperatures"]] == [float(t) for t in temperatures]
    for scale, of_scale in zip(result["scales"], expected["scales"].values(), strict=True):
        s = scale["scale"]
        assert scale["codes_used"] == of_scale["codes_used"]
        assert scale["unigram_entropy"]["plug_in"] == pytest.approx(
            of_scale["hard_marginal_entropy"], abs=1e-9
        )
        for at in result["temperatures"]:
            soft = of_scale["soft"][str(float(at["temperature"]))]
            got = at["scales"][s]
            assert got["assignment_entropy"]["value"] == pytest.approx(
                soft["conditional_entropy"], abs=1e-5
            )
            assert got["marginal_entropy"]["plug_in"] == pytest.approx(
                soft["marginal_entropy"], abs=1e-5
            )
    for at in result["temperatures"]:
        for kind, word in zip(AVERAGES, ("over_tokens", "over_scales", "last_scale"), strict=True):
            wanted = expected["average"][str(float(at["temperature"]))][word]
            assert at["average"][kind]["assignment_entropy"]["value"] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("split, count, value", [("val", 50, 5.62767), ("train", 200, 5.63159)])
def test_real_photographs(shared, estimate, split, count, value):
    result = estimate(
        *("--data", shared / "imagenet-sample", "--split", split),
        *("--ckpt", shared / "golden" / "var_l2" / "ckpt.safetensors"),
        *("--patch-nums", "1,2,3,4,6,8", "--image-size", 128),
    )
    assert result["data"]["images_used"] == count and result["data"]["split"] == split
    average = result["average"]["token_weighted"]["assignment_entropy"]
    assert average["value"] == pytest.approx(value, abs=1e-4) and 0.001 < average["se"] < 0.01
    errors = result["provenance"]["assignment_entropy_se_over_images"]
    for scale, error in zip(result["scales"], errors, strict=True):
        assert scale["assignment_entropy"]["se"] == pytest.approx(error, rel=0.4)


@pytest.mark.slow
def test_a_checkpoint_of_the_published_size(shared, estimate, tmp_path):
    """ch 160, 4096 x 32, 109 M parameters with its decoder; random weights."""
    from entropy_cli.commands.bench.random_weights import random_weights
    from entropy_cli.tokenizers.layers.var_layout import VARSizes
    from tests.published import decoder_weights

    weights = random_weights(VARSizes(), seed=0) | decoder_weights()
    assert 108e6 < sum(weight.numel() for weight in weights.values()) < 110e6
    weights["quantize.ema_vocab_hit_SV"] = torch.zeros(10, 4096)
    path = tmp_path / "vae_ch160v4096z32.pth"
    torch.save({name: weight.half() for name, weight in weights.items()}, path)
    result = estimate("--data", shared / "imagenet-sample", "--ckpt", path, "--limit", 6)
    assert result["data"]["images_used"] == 6
    assert result["tokenizer"]["patch_nums"] == [1, 2, 3, 4, 5, 6, 8, 10, 13, 16]
    assert sum(scale["tokens"] for scale in result["scales"]) == 680
    assert result["settings"]["image_size"] == 256


@pytest.mark.parametrize("options", [["--batch-size", 1], ["--batch-size", 7], ["--batch-size", 40]])
def test_the_batch_size_moves_only_rounding(estimate, baseline, images, checkpoint, options):
    other = estimate("--data", images, "--ckpt", checkpoint, *options)
    # A token between two codes may fall to the other side, and with it what its image has left.
    moved = [
        sum(abs(m - n) for m, n in zip(a["code_counts"], b["code_counts"], strict=True)) // 2
        for a, b in zip(baseline["scales"], other["scales"], strict=True)
    ]
    assert sum(moved) <= 3
    assert_same(baseline, other, counts_equal=not any(moved), tolerance=1e-3 if any(moved) else 1e-5)
    assert other["data"]["fingerprint"] == baseline["data"]["fingerprint"]


def test_workers_move_nothing(cli, baseline, images, checkpoint):
    options = ("--data", images, "--ckpt", checkpoint, "--batch-size", 4)
    code, out, _ = cli("estimate", "--json", "--workers", 2, *options)
    assert code == 0
    assert_same(baseline, json.loads(out), tolerance=0)


def test_the_place_of_the_folder_moves_nothing(estimate, baseline, images, checkpoint, tmp_path):
    shutil.copytree(images, tmp_path / "elsewhere" / "val")
    other = estimate("--data", tmp_path / "elsewhere", "--ckpt", checkpoint, "--batch-size", 4)
    assert_same(baseline, other, tolerance=0)
    assert other["data"]["fingerprint"] == baseline["data"]["fingerprint"]


def test_the_seed_moves_order_and_groups_but_not_the_means(estimate, baseline, images, checkpoint):
    other = estimate("--data", images, "--ckpt", checkpoint, "--batch-size", 4, "--seed", 9)
    for a, b in zip(baseline["scales"], other["scales"], strict=True):
        assert a["assignment_entropy"]["value"] == pytest.approx(
            b["assignment_entropy"]["value"], abs=1e-5
        )
        assert a["assignment_entropy"]["se"] != b["assignment_entropy"]["se"]
    assert other["data"]["fingerprint"] != baseline["data"]["fingerprint"]
    few = [
        estimate("--data", images, "--ckpt", checkpoint, "--limit", 8, "--seed", seed)["average"]
        for seed in (0, 9)
    ]
    assert few[0] != few[1]


def test_several_temperatures_agree_with_one_at_a_time(estimate, images, checkpoint):
    both = estimate("--data", images, "--ckpt", checkpoint, "--temperature", "0.5,2")
    for i, temperature in enumerate((0.5, 2.0)):
        alone = estimate("--data", images, "--ckpt", checkpoint, "--temperature", temperature)
        for a, b in zip(both["temperatures"][i]["scales"], alone["scales"], strict=True):
            for name in ("assignment_entropy", "marginal_entropy", "mutual_information", "varentropy"):
                for key in ("value", "plug_in", "se"):
                    assert a[name][key] == pytest.approx(b[name][key], abs=1e-9)
        if i == 0:  # the headline, to which the replicates belong
            assert both["replicates"].keys() == alone["replicates"].keys()
            for name, expected_GS in alone["replicates"].items():
                tables = [np.array(of, float) for of in (both["replicates"][name], expected_GS)]
                np.testing.assert_allclose(*tables, atol=1e-9, err_msg=name)
    assert both["settings"]["temperature"] == 0.5
    assert (
        both["scales"][0]["assignment_entropy"]
        == both["temperatures"][0]["scales"][0]["assignment_entropy"]
    )


def test_auto_fits_a_temperature_to_each_scale(estimate, images, checkpoint):
    result = estimate("--data", images, "--ckpt", checkpoint, "--temperature", "auto")
    assert result["settings"]["temperature"] == "auto"
    fit = result["provenance"]["temperature_fit"]
    assert fit["images"] == 70 and fit["ended"] == ["converged"] * 4
    found = [scale["temperature"] for scale in result["scales"]]
    assert len(set(found)) == 4
    for temperature, hard, implied in zip(
        found, fit["hard"], result["provenance"]["temperature_implied"], strict=True
    ):
        assert temperature == float(f"{temperature:.4g}") >= hard
        # The pilot was the whole set, so one more step stays where it is.
        assert implied == pytest.approx(temperature, rel=2e-3)
    if_hard = result["provenance"]["temperature_if_hard"]
    assert if_hard == pytest.approx(fit["hard"], rel=1e-3)
    # What fills up a short batch is not fitted to.
    wide = estimate(
        *("--data", images, "--ckpt", checkpoint, "--temperature", "auto", "--batch-size", 32)
    )
    assert [scale["temperature"] for scale in wide["scales"]] == pytest.approx(found, rel=1e-3)
    for s, temperature in enumerate(found):
        alone = estimate("--data", images, "--ckpt", checkpoint, "--temperature", repr(temperature))
        assert alone["scales"][s]["assignment_entropy"]["value"] == pytest.approx(
            result["scales"][s]["assignment_entropy"]["value"], abs=1e-9
        )


def test_limit_takes_the_first_of_the_order(estimate, images, checkpoint):
    result = estimate("--data", images, "--ckpt", checkpoint, "--limit", 20)
    assert result["data"]["images_used"] == 20 and result["data"]["images_found"] == 70
    one = estimate("--data", images, "--ckpt", checkpoint, "--limit", 1)
    value = one["average"]["token_weighted"]["assignment_entropy"]
    assert value["se"] is None and value["ci95"] is None and value["note"]


def test_units_and_table(cli, images, checkpoint, baseline):
    for units, factor in (("nats", 1), ("bits", 1 / math.log(2))):
        code, out, err = cli(
            "estimate",
            "--data",
            images,
            "--ckpt",
            checkpoint,
            "--workers",
            0,
            "--units",
            units,
            "--table",
            "--explain",
        )
        assert code == 0 and f"{units} per token" in out
        for scale in baseline["scales"]:
            assert f"{factor * scale['assignment_entropy']['value']:.4f}" in out
        for words in (
            "marginal entropy",
            "mutual information",
            "unigram entropy",
            "perplexity",
            "codebook usage",
            "varentropy",
            "95 %",
            "sha256",
            "neither floor nor ceiling",
        ):
            assert words in out
        assert "images in batches of" in err and "in batches of" not in out


def test_output_is_the_same_as_json(cli, images, checkpoint, tmp_path):
    path = tmp_path / "result.json"
    code, out, _ = cli(
        "estimate", "--data", images, "--ckpt", checkpoint, "--workers", 0, "-o", path, "--json"
    )
    assert code == 0 and json.loads(path.read_text()) == json.loads(out)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".result")] == []
