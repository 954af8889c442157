"""`estimate --path drawn`: the numbers of the drawn path, however a run is cut, and what they bound."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import entropy_cli
from entropy_cli import load_tokenizer
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.images.decode import read_image
from entropy_cli.images.image_set import find_images
from entropy_cli.images.uniforms import uniforms
from entropy_cli.results.floors import read_floor
from entropy_cli.results.schema import from_dict
from entropy_cli.results.text import render
from entropy_cli.streaming.batch_processor import BatchProcessor
from tests.conftest import PATCH_NUMS
from tests.e2e.test_estimate import assert_same

T, HOT = 0.3, 3.0
TOKENS = sum(n * n for n in PATCH_NUMS)


@pytest.fixture
def run(images, checkpoint):
    """The options of a drawn run."""
    return ("--data", images, "--ckpt", checkpoint, "--batch-size", 4, "--path", "drawn")


@pytest.fixture(scope="module")
@torch.inference_mode()
def encoded(images, checkpoint):
    """The tiny tokenizer, the names of all images in their order, and their latents."""
    tokenizer, found = load_tokenizer(checkpoint), find_images(images)
    pictures = [read_image(found.locate(i), tokenizer.spec.crop.apply) for i in range(len(found))]
    names = [found.name(i) for i in range(len(found))]
    return tokenizer, names, torch.cat([tokenizer.encode(p) for p in torch.stack(pictures).split(4)])


@torch.inference_mode()
def along(tokenizer, rest_BChw, idx_BL, temperatures):
    """Along some tokens, the entropy of q of each and its log q, code by code in float64: (B, L)."""
    entropy, log_q, cdf, start = [], [], [], 0
    for s, scale in enumerate(tokenizer.spec.scales):
        idx_Bl = idx_BL[:, start : start + scale.tokens]
        codes = tokenizer.codebook(s).codes_VC.double().numpy()
        for z_lC, idx_l in zip(tokenizer.vectors(rest_BChw, s).double().numpy(), idx_Bl, strict=True):
            for z_C, idx in zip(z_lC, idx_l.tolist(), strict=True):
                x_V = -((z_C - codes) ** 2).sum(1) / temperatures[s]
                x_V -= x_V.max() + math.log(np.exp(x_V - x_V.max()).sum())
                q = np.exp(x_V).tolist()
                entropy.append(-sum(p * x for p, x in zip(q, x_V.tolist(), strict=True)))
                log_q.append(float(x_V[idx]))
                cdf.append((math.fsum(q[:idx]), math.fsum(q[: idx + 1])))
        start += scale.tokens
        if start < TOKENS:
            rest_BChw = tokenizer.subtract(rest_BChw, idx_Bl, s)

    def by_image(values, *more):  # they were listed scale after scale
        sizes = [scale.tokens * len(idx_BL) for scale in tokenizer.spec.scales]
        parts = np.split(np.array(values), np.cumsum(sizes)[:-1])
        return np.concatenate([part.reshape(len(idx_BL), -1, *more) for part in parts], 1)

    return by_image(entropy), by_image(log_q), by_image(cdf, 2)


@pytest.mark.parametrize("temperature", ["0.3,0.05", "auto,1"])
def test_numbers_and_tokens_are_those_of_a_plain_loop(estimate, run, encoded, temperature, tmp_path):
    tokenizer, names, rest_BChw = encoded
    result = estimate(
        *run, "--temperature", temperature, "--save-tokens", tmp_path / "t.npy", "--seed", 0
    )
    assert result["settings"]["path"] == "drawn"
    idx_BL = torch.from_numpy(np.load(tmp_path / "t.npy").astype(np.int64))
    start = np.cumsum([0, *(n * n for n in PATCH_NUMS)])
    for t, at in enumerate(result["temperatures"]):
        values = [scale["temperature"] for scale in at["scales"]]
        entropy_BL, _, cdf_BLe = along(tokenizer, rest_BChw, idx_BL, values)
        for s, scale in enumerate(at["scales"]):
            wanted = entropy_BL[:, start[s] : start[s + 1]].mean()
            assert scale["assignment_entropy"]["value"] == pytest.approx(wanted, abs=1e-5)
        if t == 0:  # which draws: each number lies where its token is
            uniform_BL = uniforms(names, 0, TOKENS).numpy()
            assert (cdf_BLe[..., 0] - 1e-5 < uniform_BL).all()
            assert (uniform_BL < cdf_BLe[..., 1] + 1e-5).all()
    counts = [scale["code_counts"] for scale in result["scales"]]
    assert counts == [
        np.bincount(idx_BL[:, a:b].flatten(), minlength=48).tolist() for a, b in pairwise(start)
    ]


@torch.inference_mode()
def test_the_loss_of_drawn_tokens_is_a_along_the_path_and_not_a_along_the_nearest(encoded):
    tokenizer, names, rest_BChw = encoded
    rest_BChw, names = rest_BChw[:4], names[:4]
    values, excess, variance = [[HOT]] * 4, 0.0, 0.0
    path_A, last = [], slice(TOKENS - PATCH_NUMS[-1] ** 2, None)
    for seed in range(40):
        processor = BatchProcessor(tokenizer, torch.device("cpu"), 16, draw_seed=seed)
        idx_BL = torch.cat([s.idx_Bl for _, s in processor.quantize_scales(rest_BChw, names, values)], 1)
        entropy_BL, log_q_BL, _ = along(tokenizer, rest_BChw, idx_BL, [HOT] * 4)
        excess += (-log_q_BL - entropy_BL).sum()
        variance += ((-log_q_BL - entropy_BL) ** 2).sum()
        path_A.append(entropy_BL[:, last].mean())
    # Given what came before, each token's excess has mean 0: their sum is a martingale.
    assert abs(excess) < 4 * math.sqrt(variance)
    assert math.sqrt(variance) < 0.01 * 40 * 4 * TOKENS  # and the test could fail
    nearest = BatchProcessor(tokenizer, torch.device("cpu"), 16).quantize_scales(
        rest_BChw, names, values
    )
    hard_A = [s.entropy_BT.sum().item() / 4 / s.tokens for _, s in nearest][-1]
    error = np.std(path_A) / math.sqrt(len(path_A))
    assert abs(np.mean(path_A) - hard_A) > 10 * error


def test_however_it_is_cut_the_run_is_the_same(cli, estimate, run, tmp_path):
    run = (*run, "--temperature", "auto,0.3")
    whole = estimate(*run)
    parts = [tmp_path / f"{i}.state" for i in range(2)]
    for i, path in enumerate(parts):
        estimate(*run, "--shard", f"{i}/2", "--state", path)
    code, out, err = cli("merge", "--json", *parts)
    assert code == 0, err
    merged = json.loads(out)
    assert cli("merge", "--partial", parts[1], "--state", tmp_path / "s", "-o", tmp_path / "r")[0] == 0
    resumed = estimate(*run, "--state", tmp_path / "s")
    assert resumed["provenance"]["images_resumed"] == 32
    for other in (merged, resumed, estimate(*run, "--workers", 2)):
        assert_same(whole, other)
        assert other["settings"] == whole["settings"]
        assert other["data"]["fingerprint"] == whole["data"]["fingerprint"]
    one, two = (
        whole["average"]["token_weighted"][name] for name in ("unigram_entropy", "marginal_entropy")
    )
    assert one["value"] == pytest.approx(two["value"], abs=4 * one["se"])  # drawn tokens have their law
    other = estimate(*run, "--seed", 1)  # other draws too
    assert other["scales"][-1]["code_counts"] != whole["scales"][-1]["code_counts"]
    hard = estimate(*run, "--path", "hard")
    assert hard["scales"][-1]["code_counts"] != whole["scales"][-1]["code_counts"]


def test_from_python_it_is_the_command(estimate, run, images, checkpoint):
    tokenizer = load_tokenizer(checkpoint)
    drawn = entropy_cli.estimate(images, tokenizer, temperature=["auto", T], path="drawn", workers=0)
    wanted = estimate(*run[:4], "--path", "drawn", "--temperature", f"auto,{T}")
    assert_same(json.loads(drawn.to_json()), wanted)
    assert drawn.data.fingerprint == wanted["data"]["fingerprint"]
    for tokens, words in (("soft", "expected hard, drawn"), ("drawn", "path drawn: there is one scale")):
        with pytest.raises(EntropyCliError, match=words):
            entropy_cli.estimate([torch.randn(2, 3)], lambda z: z, codebook=torch.eye(3), path=tokens)


def test_where_no_scale_follows_it_is_refused_in_a_line(cli, run, tmp_path):
    code, out, err = cli("estimate", *run, "--patch-nums", 8)
    assert (code, out) == (3, "") and "there is one scale only" in err.splitlines()[-1]
    np.savez(tmp_path / "z.npz", a=np.ones((4, 3, 2), np.float32), b=np.ones((4, 3, 2), np.float32))
    z = ("--latents", tmp_path / "z.npz:a,b", "--rule", "sign", "--channels", "last")
    code, out, err = cli("estimate", *z, "--path", "drawn")
    assert (code, out) == (3, "") and "has latents of its own" in err.splitlines()[-1]


def test_bits_are_not_drawn(cli, images, shared):
    checkpoint = next((shared / "golden/infinity_bsq").glob("*.pth"))
    code, out, err = cli("estimate", "--data", images, "--ckpt", checkpoint, "--path", "drawn", "-q")
    assert (code, out) == (3, "") and "is for codes, not for bits" in err.splitlines()[-1]


def test_a_state_of_the_other_path_is_refused(cli, run, baseline, estimate, tmp_path):
    hard = run[:-2]
    estimate(*hard, "--state", tmp_path / "s")
    code, _, err = cli("estimate", *run, "--state", tmp_path / "s")
    assert code == 3 and 'path "hard", but this run has "drawn"' in err
    explicit = estimate(*hard, "--path", "hard")  # as before there was a choice
    assert explicit["data"]["fingerprint"] == baseline["data"]["fingerprint"]


def test_texts_say_which_path_the_floor_is_about(estimate, run, baseline, tmp_path):
    del baseline["settings"]["path"]  # as older results
    hard, drawn = from_dict(baseline), from_dict(estimate(*run))
    assert hard.settings.path == "hard"
    texts = [" ".join(render(result, explain=True).split()) for result in (hard, drawn)]
    for text, codes in zip(texts, ("nearest", "drawn"), strict=True):
        assert f"soft or sampled labels ({codes} codes subtracted): loss >= A" in text
    assert "hard labels (var): A is no floor" in texts[0] and "take --path drawn" in texts[0]
    assert "hard labels" not in texts[1] and "U (drawn tokens)" in texts[1]
    assert "Drawn tokens: codes drawn from q" in render(drawn, table=True)
    floors = []
    for name, result in (("hard", hard), ("drawn", drawn)):
        result.write(tmp_path / name)
        floors.append(read_floor(tmp_path / name))
    assert [floor.labels for floor in floors] == ["hard", "soft"]
    assert "nearest codes subtracted" in floors[0].source and "drawn codes" in floors[1].path


def test_a_dry_run_says_so(cli, run):
    code, out, _ = cli("estimate", *run, "--dry-run")
    assert code == 0 and "tokens are drawn at the first" in " ".join(out.split())
