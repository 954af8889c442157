"""The published implementations' values, from the command line: their pixels as pictures."""

import json

import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.family_checkpoints import ASKED, GOLDEN, golden_checkpoint

FOLDERS = {name: of for name, of in GOLDEN.items() if of[0] != "var"}


@pytest.mark.parametrize("name", FOLDERS)
def test_golden_pixels_as_pictures(shared, estimate, tmp_path, name):
    """A picture of the tokenizer's size is left as it is by every family's crop but VAR's."""
    folder = shared / "golden" / name
    expected = json.loads((folder / "expected.json").read_text())
    pixels_B3HW = load_file(folder / "expected.safetensors")["pixels_u8"]
    for i, pixels_3HW in enumerate(pixels_B3HW):
        Image.fromarray(pixels_3HW.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    temperatures = next(iter(expected["scales"].values()))["soft"]
    result = estimate(
        *("--data", tmp_path, "--ckpt", golden_checkpoint(folder), "--family", ASKED.get(name, "auto")),
        *("--image-size", expected["resolution"]),
        *("--temperature", ",".join(temperatures)),
    )
    family, rule = FOLDERS[name]
    tokenizer = result["tokenizer"]
    assert (tokenizer["family"], tokenizer["rule"]) == (family, rule)
    assert tokenizer["vocab_size"] == (expected.get("vocab_size") or 2 ** expected["bits"])
    for s, of_scale in enumerate(expected["scales"].values()):
        hard = result["scales"][s]
        assert hard["codes_used"] == of_scale["codes_used"]
        assert hard["tokens"] * len(pixels_B3HW) == of_scale["tokens"]
        if "hard_marginal_entropy" in of_scale:
            assert hard["unigram_entropy"]["plug_in"] == pytest.approx(of_scale["hard_marginal_entropy"])
        for t, soft in enumerate(of_scale["soft"].values()):
            got = result["temperatures"][t]["scales"][s]
            assert got["assignment_entropy"]["value"] == pytest.approx(
                soft["conditional_entropy"], abs=1e-5
            )
            assert got["marginal_entropy"]["plug_in"] == pytest.approx(
                soft["marginal_entropy"], abs=1e-5
            )
