"""What a Python caller may get wrong: an EntropyCliError in one line, and what is right is taken."""

from pathlib import Path

import numpy as np
import pytest
import torch

import entropy_cli
from entropy_cli import estimate, load_tokenizer, read_result
from entropy_cli.core.errors import EntropyCliError

Z, CODES = torch.randn(20, 4, 2, 2), torch.randn(8, 4)


def same(batch):
    return batch


def run(images=Z, encode=same, codebook=CODES, **more):
    return estimate(images if isinstance(images, list) else [images], encode, codebook=codebook, **more)


LEVELS = {"rule": "levels", "codebook": None}
WRONG = {
    "meta codes": lambda: run(codebook=CODES.to("meta")),
    "sparse codes": lambda: run(codebook=CODES.to_sparse()),
    "integer codes": lambda: run(codebook=CODES.long()),
    "complex codes": lambda: run(codebook=CODES.to(torch.complex64)),
    "empty codes": lambda: run(codebook=CODES[:0]),
    "codes of nothing": lambda: run(codebook=CODES[:, :0]),
    "codes are no tensor": lambda: run(codebook=torch.nn.Embedding(8, 4)),
    "codes of None": lambda: run(codebook=[None]),
    "codes with NaN": lambda: run(codebook=CODES * torch.nan),
    "masked codes": lambda: run(codebook=np.ma.masked_less(CODES.numpy(), 0)),
    "codes of text": lambda: run(codebook=np.array([["a"]])),
    "meta latents": lambda: run(Z.to("meta")),
    "sparse latents": lambda: run(Z.to_sparse()),
    "integer latents": lambda: run(Z.long()),
    "empty latents": lambda: run(Z[:0]),
    "latents without positions": lambda: run(Z[..., :0]),
    "no latents": lambda: run(encode=lambda _: None),
    "latents are no tensor": lambda: run(encode=lambda _: 1.0),
    "latents of a scalar": lambda: run(torch.tensor(1.0)),
    "images of None": lambda: run([None]),
    "images are None": lambda: estimate(None, same, codebook=CODES),
    "images are a tensor": lambda: estimate(Z, same, codebook=CODES),
    "images are a number": lambda: estimate(1, same, codebook=CODES),
    "no tokenizer": lambda: estimate([Z], None, codebook=CODES),
    "temperature 10^400": lambda: run(temperature=10**400),
    "temperature of many digits": lambda: run(temperature=10**6000),
    "temperature NaN": lambda: run(temperature=float("nan")),
    "temperature None among others": lambda: run(temperature=[1, None]),
    "levels 10^12": lambda: run(levels=[10**12] * 4, **LEVELS),
    "levels of many digits": lambda: run(levels=[10**6000] * 4, **LEVELS),
    "levels are a number": lambda: run(levels=5, **LEVELS),
    "device None": lambda: run(device=None),
    "device of a number": lambda: run(device=0),
    "device meta": lambda: run(device=torch.device("meta")),
    "device that is not there": lambda: run(device=torch.device("cuda", 99)),
    "rule of a number": lambda: run(rule=5),
    "load None": lambda: load_tokenizer(None),
    "load bytes": lambda: load_tokenizer(b"model.pt"),
    "load a NUL": lambda: load_tokenizer("a\0b"),
    "load image size 0": lambda: load_tokenizer("a.pt", image_size=0),
    "load image size 10^9": lambda: load_tokenizer("a.pt", image_size=10**9),
    "load sides": lambda: load_tokenizer("a.pt", patch_nums=[1, 10**20]),
    "read None": lambda: read_result(None),
    "read a NUL": lambda: read_result("a\0b"),
    "read a number": lambda: read_result(3),
    "read a folder": lambda: read_result(Path()),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_misuse_is_an_error_of_ours_in_one_line(call):
    with pytest.raises(EntropyCliError) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_devices_paths_and_parameters_are_taken_as_they_are(checkpoint, images, tmp_path):
    expected = run(device="cpu").average
    parameter = torch.nn.Parameter(CODES)
    for codes in (parameter, CODES.numpy(), CODES.double(), np.asfortranarray(CODES.numpy())):
        assert run(codebook=codes, device=torch.device("cpu")).average == expected
    tokenizer = entropy_cli.load_tokenizer(Path(checkpoint), image_size=32)
    result = estimate(Path(images), tokenizer, device=torch.device("cpu"))
    result.write(tmp_path / "r.json")
    assert read_result(tmp_path / "r.json") == read_result(str(tmp_path / "r.json")) == result
