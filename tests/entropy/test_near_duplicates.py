"""Codes that all but coincide: counted like brute force does, fast, and said before a run."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from entropy_cli import estimate
from entropy_cli.entropy import codebook_statistics as module
from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.codebook_statistics import near_duplicates
from tests.family_checkpoints import EXAMPLES, gumbel_shapes, random_weights


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def brute_force(code_VC):
    """How many are within a millionth of the median length of another, by differences in float64."""
    code_VC = code_VC.double()
    most = 1e-6 * sorted(code_VC.norm(dim=1).tolist())[(len(code_VC) - 1) // 2]
    number = 0
    for i, code_C in enumerate(code_VC):
        distance_V = (code_VC - code_C).norm(dim=1)
        distance_V[i] = math.inf
        number += int(distance_V.min() <= most)
    return number


def some_codes(V, C, kind, seed):
    code_VC = torch.randn(V, C, generator=generator(seed), dtype=torch.float64)
    if kind == "pairs":  # about as many just within as just beyond
        apart_NC = torch.nn.functional.normalize(torch.randn(V // 3, C, generator=generator(seed + 1)))
        length = code_VC.norm(dim=1).median() * 1e-6
        code_VC[: V // 3] = (
            code_VC[-(V // 3) :] + apart_NC * length * torch.linspace(0.5, 1.5, V // 3)[:, None]
        )
    elif kind == "clusters":
        code_VC = code_VC[torch.arange(V) % (V // 5)]
    elif kind == "cloud":
        code_VC = code_VC[:1] + 1e-6 * code_VC[:1].norm() * code_VC * C**-0.5
    elif kind == "dead":
        code_VC[V // 3 :: 2] *= 1e-5
    elif kind == "zero":
        code_VC[V // 3 :] = 0
    return code_VC


@pytest.mark.parametrize("kind", ["apart", "pairs", "clusters", "cloud", "dead", "zero"])
@pytest.mark.parametrize(("V", "C"), [(2, 3), (300, 1), (400, 4), (500, 40)])
def test_like_brute_force(V, C, kind):
    for seed in range(3):
        code_VC = some_codes(V, C, kind, seed) if V > 5 else torch.ones(V, C)
        found = near_duplicates(code_VC)
        assert (found.codes, found.number, found.is_exact) == (V, brute_force(code_VC), True)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_float32_far_from_zero(offset):
    code_VC = (some_codes(400, 8, "clusters", 0) + offset).float()
    code_VC[7] = code_VC[8] = 5.0
    assert near_duplicates(code_VC).number == brute_force(code_VC)


def test_few_neighbours_and_a_sample(monkeypatch):
    """Where sorting does not tell enough, codes are compared with all, then a sample of them is."""
    code_VC = some_codes(600, 40, "cloud", 0)
    expected = brute_force(code_VC)
    assert 60 < expected < 600
    monkeypatch.setattr(module, "MAX_NEIGHBOURS", 3)
    assert near_duplicates(code_VC).number == expected
    monkeypatch.setattr(module, "MAX_PAIRS", 0)
    assert near_duplicates(code_VC).number == expected
    monkeypatch.setattr(module, "MAX_PRODUCTS", 200 * code_VC.numel())
    found = near_duplicates(code_VC)
    assert not found.is_exact and found.number == pytest.approx(expected, abs=80)


def test_one_code_and_none_alike():
    assert near_duplicates(torch.ones(1, 4)).number == 0
    assert near_duplicates(torch.eye(5)).number == 0
    assert near_duplicates(torch.zeros(5, 2)).number == 5
    assert near_duplicates(torch.zeros(5, 2)).spread is None
    assert near_duplicates(1 + 1e-5 * torch.eye(6)).spread == pytest.approx(
        1e-5 * (5 / 6 / 6) ** 0.5, rel=0.01
    )


def test_a_large_codebook_of_pairs():
    code_VC = torch.randn(2**15, 64, generator=generator())
    code_VC[::2] = code_VC[1::2]
    assert near_duplicates(code_VC).number == 2**15


def test_what_coincides_goes_by_the_rule():
    code_VC = torch.randn(50, 4, generator=generator()).repeat(2, 1)
    code_VC[50:] *= 3
    assert near_duplicates(Codebook(code_VC, "l2").codes_for_comparison()).number == 0
    assert near_duplicates(Codebook(code_VC, "cosine").codes_for_comparison()).number == 100
    assert near_duplicates(Codebook(code_VC, "dot").codes_for_comparison()).number == 0
    code_VC[50:] /= 3
    assert (
        near_duplicates(Codebook(code_VC, "logits", torch.arange(100.0)).codes_for_comparison()).number
        == 0
    )
    assert (
        near_duplicates(Codebook(code_VC, "logits", torch.ones(100)).codes_for_comparison()).number
        == 100
    )


CODES = "quantize.embedding.weight"


@pytest.fixture
def collapsed(tmp_path, checkpoint, weights):
    """The tiny tokenizer with so many of its 48 codes like the last one."""

    def save(number):
        code_VC = weights[CODES].clone()
        code_VC[: number - 1 if number else 0] = code_VC[-1] * (1 + 2e-7)
        path = tmp_path / "tiny.safetensors"
        save_file({**weights, CODES: code_VC}, path)
        (tmp_path / "config.json").write_text(checkpoint.with_name("config.json").read_text())
        return path

    return save


def test_inspect_and_estimate_say_so(cli, collapsed, images, tmp_path):
    for number in (0, 20):
        path = collapsed(number)
        words = "20 of the 48 codes coincide with another: at most 1e-06 of the codes' median length"
        code, out, _ = cli("inspect", path, "--json")
        notes = json.loads(out)["tokenizer"]["notes"]
        assert code == 0 and any(words in note for note in notes) == bool(number)
        code, out, _ = cli("inspect", path)
        assert (words in " ".join(out.split())) == bool(number)
        output = tmp_path / "results" / "r.json"
        output.parent.mkdir(exist_ok=True)
        argv = [
            "--data",
            images,
            "--ckpt",
            path,
            "--limit",
            8,
            "--workers",
            0,
            "-o",
            output,
            "--explain",
        ]
        code, out, err = cli("estimate", *argv, "--explain")
        found = json.loads(output.read_text())["provenance"]["codebook_notes"]
        assert code == 0 and any(words in note for note in found) == bool(number)
        assert (f"warning: {path}: {words}" in err) == bool(number)
        assert (words in " ".join(out.split())) == bool(number)


def test_one_code_in_a_hundred_is_not_worth_a_word():
    code_VC = torch.randn(400, 3, generator=generator())
    for number, said in ((4, 0), (5, 1)):
        code_VC[:number] = code_VC[0]
        result = estimate([torch.randn(20, 3, generator=generator())], lambda z: z, codebook=code_VC)
        assert len(result.provenance["codebook_notes"]) == said


def test_given_latents_and_codebooks_of_each_scale(cli, tmp_path):
    fine_VC = torch.randn(30, 3, generator=generator())
    bad_VC = fine_VC.clone()
    bad_VC[:9] = bad_VC[0]
    tensors = {"a": torch.randn(40, 2, 3), "b": torch.randn(40, 3), "fine": fine_VC, "bad": bad_VC}
    save_file(tensors, tmp_path / "z.safetensors")
    for codebook, expected in (
        ("fine", ""),
        ("bad", "9 of the 30 codes coincide"),
        ("fine,bad", "9 of the 30 codes of b coincide"),
    ):
        file = f"{tmp_path}/z.safetensors:"
        code, out, err = cli(
            "estimate", "--latents", f"{file}a,b", "--codebook", file + codebook, "--json"
        )
        notes = json.loads(out)["provenance"]["codebook_notes"]
        assert code == 0 and [expected in note for note in notes] == ([True] if expected else [])
        assert (f"warning: {file}{codebook}: {expected}" in err) == bool(expected)


@pytest.mark.parametrize("family", ["rq-vae", "vqgan", "ibq", "titok", "llamagen"])
def test_other_families(cli, tmp_path, family):
    """Codebooks by depth, and what the checkpoint lists as used."""
    weights = random_weights(EXAMPLES[family].shapes)
    name = next(n for n in (CODES, "quantizer.codebooks.1.weight") if n in weights)
    path = tmp_path / "x.safetensors"
    codes = len(weights[name])
    weights[name][: codes // 2] = weights[name][0]
    save_file(weights, path)
    _, out, _ = cli("inspect", path, "--json", "--family", EXAMPLES[family].family)
    (note,) = [note for note in json.loads(out)["tokenizer"]["notes"] if "coincide" in note]
    assert note.startswith(f"{codes // 2} of the")
    assert ("codes of depth 1" in note) == (family == "rq-vae")


@pytest.mark.parametrize("said", [True, False])
def test_of_codes_in_use_alone(cli, tmp_path, said):
    weights = random_weights(EXAMPLES["vqgan"].shapes)
    codes = len(weights[CODES])
    weights[CODES][: codes // 2] = weights[CODES][0]
    used_U = torch.arange(codes // 4, codes) if said else torch.arange(codes // 2 - 1, codes)
    save_file({**weights, "quantize.used": used_U}, tmp_path / "x.safetensors")
    _, out, _ = cli("inspect", tmp_path / "x.safetensors", "--json")
    notes = [note for note in json.loads(out)["tokenizer"]["notes"] if "coincide" in note]
    assert [note.partition(" codes")[0] for note in notes] == (
        [f"{codes // 2 - codes // 4} of the {len(used_U)}"] if said else []
    )


@pytest.mark.parametrize("alike", [True, False])
def test_of_a_projection_with_its_biases(cli, tmp_path, alike):
    weights = random_weights(gumbel_shapes())
    weights["quantize.proj.weight"][:20] = weights["quantize.proj.weight"][0]
    weights["quantize.proj.bias"][:20] = 0 if alike else torch.arange(20.0)
    save_file(weights, tmp_path / "x.safetensors")
    _, out, _ = cli("inspect", tmp_path / "x.safetensors", "--json")
    assert len(json.loads(out)["tokenizer"]["notes"]) == alike
