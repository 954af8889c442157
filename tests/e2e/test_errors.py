"""What goes wrong: one line, the right exit code, and no number that should not be there."""

import json
import math
import shlex
import shutil
import subprocess

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from entropy_cli.options import exit_code
from entropy_cli.tokenizers.families.var import VARTokenizer
from tests.conftest import python, subprocess_environment
from tests.e2e.test_estimate import assert_same


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
    last = "error: 2 of 72 images could not be read, a larger share than --max-failed 0.01: exit code 4"
    assert err.splitlines()[-1] == last
    quiet = cli("estimate", "-q", "--json", "--workers", 0, "--data", data, "--ckpt", checkpoint)
    assert (quiet[0], quiet[2]) == (4, f"{last}\n")
    assert_same(clean, result, tolerance=1e-5)
    code, _, _ = cli(
        "estimate", "--workers", 0, "--data", data, "--ckpt", checkpoint, "--max-failed", 0.5
    )
    assert code == 0
    code, out, err = cli(
        "estimate", "--workers", 0, "--data", data, "--ckpt", checkpoint, "--on-error", "fail"
    )
    assert code == 3 and out == "" and "can't be read" in err.splitlines()[-1]


def test_files_left_aside_are_named_on_one_line(cli, estimate, images, checkpoint, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(images, data)
    for name in ("0.jpg_large", "1.jpg_large", "2.heic", "labels.txt", "._0.jpg"):
        (data / name).write_bytes(b"x")
    code, out, err = cli("estimate", "--json", "--workers", 0, "--data", data, "--ckpt", checkpoint)
    (line,) = (line for line in err.splitlines() if "skipped files" in line)
    assert line.startswith(f"warning: {data}: ") and line.endswith(".jpg_large: 2 files, .heic: 1 file")
    assert code == 0
    assert_same(estimate("--data", images, "--ckpt", checkpoint), json.loads(out), tolerance=1e-5)


def test_a_run_without_a_readable_image_is_an_error(cli, checkpoint, tmp_path):
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
    assert "from now on 16 images at once" in err and "now on 1 images at once" in err


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
    huge = estimate(*few, "--batch-size", 65_536)
    assert huge["provenance"]["batch_size"] == 16
    assert_same(huge, estimate(*few, "--batch-size", 16), tolerance=0)


def test_odd_names_stay_on_their_line(cli, images, checkpoint, tmp_path):
    (tmp_path / "bad\nerror: forged.jpg").write_bytes(b"broken")
    (tmp_path / "esc\x1b[31m.jpg").write_bytes(b"broken")
    (tmp_path / "caf\udce9.jpg").write_bytes(b"broken")  # not UTF-8
    shutil.copy(next(images.rglob("*.jpg")), tmp_path / "good ü.jpg")
    code, out, err = cli("estimate", "--json", "--workers", 0, "--data", tmp_path, "--ckpt", checkpoint)
    assert code == 4 and len(json.loads(out)["data"]["failed"]) == 3
    (only,) = [line for line in err.splitlines() if line.startswith("error")]
    assert "\x1b" not in err and "3 of 4 images" in only


def test_a_reader_who_leaves_is_no_error(images, checkpoint, tmp_path):
    argv = [*python(), "-m", "entropy_cli", "estimate", "--data", images, "--ckpt", checkpoint]
    command = shlex.join([str(part) for part in [*argv, "--workers", 0, "--limit", 16]])
    environment = subprocess_environment(tmp_path)
    for tail, code in (("| head -1", 0), (">/dev/full", 3), ("2>&-", 0)):
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
        (["--temperature", "0"], 2, "expected numbers between"),
        (["--temperature", "-1"], 2, "expected numbers between"),
        (["--temperature", "nan"], 2, "expected numbers between"),
        (["--temperature", "inf"], 2, "expected numbers between"),
        (["--temperature", "1,"], 2, "expected numbers between"),
        (["--temperature", "1,1.0"], 2, "given twice"),
        (["--temperature", "warm"], 2, "expected numbers between"),
        (["--patch-nums", "1,x"], 2, "a whole number from 1 to 4,096"),
        (["--patch-nums", "0,8"], 2, "a whole number from 1 to 4,096"),
        (["--patch-nums", "1,2,4"], 3, "8 x 8"),
        (["--image-size", "30"], 3, "multiple of 4"),
        (["--limit", "0"], 2, "--limit"),
        (["--batch-size", "0"], 2, "auto or a whole number from 1 to 65,536"),
        (["--workers", "-1"], 2, "from 0 to 1,024"),
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
    assert code == 3 and "quantize.embedding.weight holds NaN" in err


@pytest.mark.parametrize(("failed", "code"), [(0, 0), (1, 0), (2, 0), (3, 4)])
def test_a_run_is_incomplete_only_above_the_share_of_max_failed(failed, code):
    assert exit_code(100 - failed, failed, 0.02) == code
    assert exit_code(100 - failed, failed, 0) == (4 if failed else 0)
