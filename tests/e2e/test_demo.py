"""The demo: its trained tokenizer, reconstructions, and an estimate."""

import json
import re

import pytest
from PIL import Image

from entropy_cli.commands.demo import cli as demo

pytestmark = pytest.mark.slow


def test_demo_estimates_with_its_own_tokenizer(cli, tmp_path):
    code, out, err = cli("demo", "--output", tmp_path)
    assert code == 0, err
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["tokenizer"]["patch_nums"] == [1, 2, 3, 5, 8]
    assert result["data"]["images_used"] == demo.IMAGES
    total = result["average"]["token_weighted"]
    assert total["usage"] > 0.8
    assert f"{total['assignment_entropy']['value']:.2f} " in out
    with Image.open(tmp_path / "reconstructions.png") as figure:
        assert figure.width > figure.height / 2 > 300
    assert str(tmp_path / "reconstructions.png") in err
    assert float(re.search(r"PSNR ([0-9.]+) dB", err)[1]) > 24  # of random weights about 10
    lines = out.splitlines()
    assert len(lines) <= 24 and all(len(line) <= 80 or "/" in line for line in lines)
    assert lines[-1] == f"as a page with figures: {tmp_path / 'report.html'}"


def test_the_tokenizer_is_small_and_records_how_it_was_trained():
    config = json.loads(demo.TOKENIZER.with_name("config.json").read_text())
    assert demo.TOKENIZER.stat().st_size <= 2_000_000
    assert config["command"].startswith("entropy-cli train --data synthetic --preset tiny --seed 0")
    assert config["steps_done"] == config["steps"]
