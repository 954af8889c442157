"""`entropy-cli estimate` from the command line: numbers, invariances, files, exit codes."""

import json
import math
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from entropy_cli.functional.quantity import QUANTITIES
from entropy_cli.results.schema import from_dict
from entropy_cli.tokenizers.var import VARTokenizer
from tests.conftest import PATCH_NUMS, subprocess_environment

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


@pytest.fixture
def baseline(estimate, images, checkpoint):
    return estimate("--data", images, "--ckpt", checkpoint, "--batch-size", 4)


def test_the_result_is_whole_and_its_numbers_fit_together(baseline):
    result = baseline
    assert result["schema"] == "entropy-cli/estimate" and result["schema_version"] == 1
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
    assert len(result["temperatures"]) == 1
    last = result["history"][-1]
    assert last["images"] == 70 and last["value"] == pytest.approx(average["token_weighted"])
    assert [entry["images"] for entry in result["history"]] == [16, 32, 48, 64, 70]
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
    from entropy_cli.engine.untrained import random_weights
    from entropy_cli.tokenizers.layout import VARSizes
    from tests.decoder import decoder_weights

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
            "estimate", "--data", images, "--ckpt", checkpoint, "--workers", 0, "--units", units
        )
        assert code == 0 and f"{units} per token" in out
        for scale in baseline["scales"]:
            assert f"{factor * scale['assignment_entropy']['value']:.4f}" in out
        for words in (
            "marginal entropy",
            "mutual information",
            "unigram entropy",
            "perplexity",
            "codes used",
            "varentropy",
            "95 %",
            "sha256",
            "neither floor nor ceiling",
        ):
            assert words in out
        assert "img" in err and "img" not in out  # the progress bar


def test_output_is_the_same_as_json(cli, images, checkpoint, tmp_path):
    path = tmp_path / "result.json"
    code, out, _ = cli(
        "estimate", "--data", images, "--ckpt", checkpoint, "--workers", 0, "-o", path, "--json"
    )
    assert code == 0 and json.loads(path.read_text()) == json.loads(out)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".result")] == []


def test_unreadable_images_are_counted_listed_and_may_stop_the_run(
    cli, estimate, images, checkpoint, tmp_path
):
    data = tmp_path / "data"
    shutil.copytree(images, data)
    clean = estimate("--data", data, "--ckpt", checkpoint)
    (data / "broken.jpg").write_bytes(b"no picture")
    Image.effect_noise((64, 64), 50).save(data / "whole.png")
    (data / "cut.png").write_bytes((data / "whole.png").read_bytes()[:500])
    (data / "whole.png").unlink()
    code, out, err = cli("estimate", "--json", "--workers", 0, "--data", data, "--ckpt", checkpoint)
    result = json.loads(out)
    assert code == 4  # 2 of 72 is more than one in a hundred
    assert sorted(result["data"]["failed"]) == ["broken.jpg", "cut.png"]
    assert (result["data"]["images_used"], result["data"]["images_failed"]) == (70, 2)
    assert "broken.jpg" in err and "cut.png" in err
    assert_same(clean, result, tolerance=1e-5)
    code, _, _ = cli(
        "estimate", "--workers", 0, "--data", data, "--ckpt", checkpoint, "--max-failed", 0.5
    )
    assert code == 0
    code, out, err = cli(
        "estimate", "--workers", 0, "--data", data, "--ckpt", checkpoint, "--on-error", "fail"
    )
    assert code == 3 and out == "" and "can't be read" in err.splitlines()[-1]


def test_all_unreadable(cli, checkpoint, tmp_path):
    (tmp_path / "data").mkdir()
    for i in range(20):
        (tmp_path / "data" / f"{i}.jpg").write_bytes(b"no picture")
    for temperature in ("1", "auto"):
        code, out, err = cli(
            "estimate",
            "--workers",
            0,
            "--data",
            tmp_path / "data",
            "--ckpt",
            checkpoint,
            "--temperature",
            temperature,
        )
        assert code == 3 and out == "" and err.splitlines()[-1].startswith("error: ")
        assert "could be read" in err.splitlines()[-1]


def test_running_out_of_memory_halves_the_batch(estimate, baseline, images, checkpoint, monkeypatch):
    encode = VARTokenizer.encode

    def short_of_memory(self, img_B3HW):
        if len(img_B3HW) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, img_B3HW)

    monkeypatch.setattr(VARTokenizer, "encode", short_of_memory)
    result = estimate("--data", images, "--ckpt", checkpoint, "--batch-size", 32)
    assert_same(baseline, result, tolerance=1e-5)
    monkeypatch.setattr(VARTokenizer, "encode", lambda *_: short_of_memory(None, [0] * 9))
    code, err = estimate("--data", images, "--ckpt", checkpoint, "--batch-size", 32, "--seed", 5)
    assert code == 3 and "single image" in err.splitlines()[-1]
    assert "going on with 16 images at once" in err and "with 1 images at once" in err


def test_latents_that_are_not_numbers_name_scale_and_image(estimate, images, checkpoint, monkeypatch):
    subtract = VARTokenizer.subtract

    def breaks(self, rest_BChw, idx_Bl, scale):
        rest_BChw = subtract(self, rest_BChw, idx_Bl, scale)
        return rest_BChw * math.nan if scale == 1 else rest_BChw

    monkeypatch.setattr(VARTokenizer, "subtract", breaks)
    for temperature in ("1", "auto"):
        code, err = estimate("--data", images, "--ckpt", checkpoint, "--temperature", temperature)
        assert code == 3
        assert "scale 2 (4 x 4)" in err.splitlines()[-1] and ".jpg" in err.splitlines()[-1]


@pytest.mark.parametrize(
    "tensor, factor", [("quant_conv.weight", 1e30), ("quantize.embedding.weight", 1e25)]
)
@pytest.mark.parametrize("temperature", ["1", "auto"])
def test_distances_beyond_float32_name_the_scale(
    estimate, images, weights, tmp_path, tensor, factor, temperature
):
    save_file({**weights, tensor: weights[tensor] * factor}, tmp_path / "big.safetensors")
    code, err = estimate(
        *("--data", images, "--ckpt", tmp_path / "big.safetensors", "--temperature", temperature),
        *("--image-size", 32, "--patch-nums", "1,2,4,8"),
    )
    assert code == 3 and "scale 0 (1 x 1)" in err.splitlines()[-1]


def test_a_batch_size_beyond_the_images_costs_nothing(estimate, images, checkpoint):
    few = ("--data", images, "--ckpt", checkpoint, "--limit", 3)
    huge = estimate(*few, "--batch-size", 10**9 - 1)
    assert huge["provenance"]["batch_size"] == 16
    assert_same(huge, estimate(*few, "--batch-size", 16), tolerance=0)


def test_odd_names_stay_on_their_line(cli, images, checkpoint, tmp_path):
    (tmp_path / "bad\nerror: forged.jpg").write_bytes(b"broken")
    (tmp_path / "esc\x1b[31m.jpg").write_bytes(b"broken")
    (tmp_path / "caf\udce9.jpg").write_bytes(b"broken")  # not UTF-8
    shutil.copy(next(images.rglob("*.jpg")), tmp_path / "good ü.jpg")
    code, out, err = cli("estimate", "--json", "--workers", 0, "--data", tmp_path, "--ckpt", checkpoint)
    assert code == 4 and len(json.loads(out)["data"]["failed"]) == 3
    assert "\x1b" not in err and not [line for line in err.splitlines() if line.startswith("error")]


def test_a_reader_who_leaves_is_no_error(images, checkpoint, tmp_path):
    argv = [sys.executable, "-m", "entropy_cli", "estimate", "--data", images, "--ckpt", checkpoint]
    command = shlex.join([str(part) for part in [*argv, "--workers", 0]])
    environment = subprocess_environment(tmp_path)
    for tail, code in (("| head -1", 0), (">/dev/full", 3), (">&-", 3), ("2>&-", 0), ("2>/dev/full", 0)):
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command} {tail}"],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert done.returncode == code, (tail, done.stderr)
        assert "Traceback" not in done.stderr
        if code:
            assert "shows the result again" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "options, code, words",
    [
        (["--temperature", "0"], 2, "expected auto, or numbers"),
        (["--temperature", "-1"], 2, "expected auto, or numbers"),
        (["--temperature", "nan"], 2, "expected auto, or numbers"),
        (["--temperature", "inf"], 2, "expected auto, or numbers"),
        (["--temperature", "1,"], 2, "expected auto, or numbers"),
        (["--temperature", "1,1.0"], 2, "given twice"),
        (["--temperature", "warm"], 2, "expected auto, or numbers"),
        (["--patch-nums", "1,x"], 2, "positive integers"),
        (["--patch-nums", "0,8"], 2, "positive integers"),
        (["--patch-nums", "1,2,4"], 3, "8 x 8"),
        (["--image-size", "30"], 3, "multiple of 4"),
        (["--limit", "0"], 2, "--limit"),
        (["--batch-size", "0"], 2, "at least 1"),
        (["--workers", "-1"], 2, "at least 0"),
        (["--device", "tpu"], 2, "expected auto, cpu, cuda"),
        (["--device", "cuda:99999999999999999999"], 2, "--device"),
        (["--batch-size", "9" * 5000], 2, "--batch-size"),
        (["--data", "n" * 300], 3, "too long"),
        (["--output", "n" * 300], 3, "too long"),
        (["--device", "cuda:99"], 3, "no such device"),
        (["--family", "clip"], 2, "expected auto, var"),
        (["--units", "bans"], 2, "--units"),
        (["--split", "test"], 2, "--split"),
        (["--split", "val"], 3, "no val/ folder"),
        (["--ckpt", "gone.pth"], 3, "no such file"),
        (["--data", "gone"], 3, "no such folder"),
        (["--output", "gone/result.json"], 3, "no folder gone"),
        (["--output", "."], 3, "is a folder"),
        (["--output", "/dev/null"], 3, "device"),
        (["--output", "same", "--state", "same"], 3, "same file as --output"),
        (["--state", "gone/state"], 3, "no folder gone"),
        (["--max-failed", "2"], 2, "--max-failed"),
        (["--nonsense"], 2, "--nonsense"),
    ],
)
def test_errors_are_one_line_with_their_code(cli, images, checkpoint, options, code, words):
    got, out, err = cli("estimate", "--data", images, "--ckpt", checkpoint, *options)
    assert got == code and out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0]


def test_the_output_is_checked_before_the_work(cli, images, tmp_path):
    """Even a missing checkpoint is found out later."""
    code, _, err = cli(
        "estimate", "--data", images, "--ckpt", tmp_path / "gone", "-o", tmp_path / "no" / "r.json"
    )
    assert code == 3 and "--output" in err


def test_missing_options_are_usage_errors(cli):
    code, out, err = cli("estimate")
    assert code == 2 and out == "" and len(err.strip().splitlines()) == 1


def test_a_checkpoint_with_nan_is_refused(cli, images, weights, tmp_path):
    bad = weights | {"quantize.embedding.weight": weights["quantize.embedding.weight"] * math.nan}
    save_file(bad, tmp_path / "nan.safetensors")
    code, _, err = cli(
        *("estimate", "--data", images, "--ckpt", tmp_path / "nan.safetensors"),
        *("--image-size", 32, "--patch-nums", "1,8"),
    )
    assert code == 3 and "quantize.embedding.weight" in err and "scale 0" in err
