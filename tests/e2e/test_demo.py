"""The demo: its trained tokenizer and generator, reconstructions, an estimate and an evaluation."""

import json
import re

import pytest
from PIL import Image

from entropy_cli.commands.demo import cli as demo

pytestmark = pytest.mark.slow


def test_demo_estimates_and_evaluates_with_its_own_networks(cli, tmp_path):
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
    told = "as a page with figures: "
    screens = [screen.strip().splitlines() for screen in re.split(f"{told}.*\n", out)]
    assert re.findall(f"{told}(.*)\n", out) == [
        str(tmp_path / name) for name in ("report.html", "evaluation.html")
    ]
    for lines in screens:
        assert len(lines) <= 24 and all(len(line) <= 80 for line in lines)
    # The model is above its floor, and knows more than counting: it is below every rung.
    losses = json.loads((tmp_path / "evaluation.json").read_text())
    found = losses["average"]["token_weighted"]
    assert found["assignment_entropy"] == total["assignment_entropy"]
    rungs = {rung["id"]: rung["average"]["token_weighted"] for rung in losses["ladder"]["rungs"]}
    low, high = found["cross_entropy"]["ci95"]
    assert found["assignment_entropy"]["ci95"][1] < low
    assert high < rungs["context"]["value"] and "below the context rung" in out
    assert found["kl"]["ci95"][0] > 0 and losses["labels"]["check"]["gain"]["ci95"][0] > 0


def test_the_tokenizer_is_small_and_records_how_it_was_trained():
    config = json.loads(demo.TOKENIZER.with_name("config.json").read_text())
    assert demo.TOKENIZER.stat().st_size <= 2_000_000
    assert config["command"].startswith("entropy-cli train --data synthetic --preset tiny --seed 0")
    assert config["steps_done"] == config["steps"]
