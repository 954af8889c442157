"""The benchmark: counted work, agreement with the baseline, and output."""

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from entropy_cli.commands.bench import roofline
from entropy_cli.commands.bench.contenders import PlainLoop
from entropy_cli.commands.bench.generators import PlainForward, random_generator
from entropy_cli.commands.bench.random_weights import random_weights
from entropy_cli.commands.bench.roofline import Peak, Work, count_work, measure_peak, quantiser_work
from entropy_cli.entropy.assign import assign
from entropy_cli.generators.registry import match_generator
from entropy_cli.streaming.scorer import Scorer
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.layers.var_layout import VARSizes
from entropy_cli.tokenizers.registry import find_family, load_tokenizer
from entropy_cli.tokenizers.settings import TokenizerSettings

SMALL = ("--width", 32, "--vocab-size", 256, "--image-size", 32, "--patch-nums", "1,2", "--images", 8)
SMALL += ("--workers", 0)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def short_measuring(monkeypatch):
    """Take peaks from one call each."""
    monkeypatch.setattr(roofline, "MEASURE_S", 0)


@pytest.fixture
def in_this_process(monkeypatch):
    """Run contenders in threads."""
    name = "entropy_cli.commands.bench.bench.ProcessPoolExecutor"
    monkeypatch.setattr(name, lambda *_: ThreadPoolExecutor(1), raising=False)


def find_family_of_random_weights(folder):
    """The tokenizer that SMALL makes."""
    save_file(random_weights(VARSizes(32, vocab_size=256), 0), folder / "random.safetensors")
    return find_family(folder / "random.safetensors", settings=TokenizerSettings(32, (1, 2))).describe()


@pytest.fixture
def bench(cli):
    """Run `bench --json`."""

    def run(*argv):
        code, out, err = cli("bench", "--json", "--device", "cpu", *argv)
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.mark.slow
def test_program_and_plain_loop_are_timed_side_by_side_and_agree(bench, tmp_path):
    others = get_context("spawn").Process(target=time.sleep, args=(600,))
    others.start()
    found = bench(*SMALL, "--baseline", "--temperature", "1,0.5", "-o", tmp_path / "b.json")
    assert found == json.loads((tmp_path / "b.json").read_text())
    assert found["schema"] == "entropy-cli/bench" and found["schema_version"] == 1
    names = [stage["name"] for stage in found["stages"]]
    assert names == ["load", "decode", "encoder", "quantiser", "end to end"]
    for stage in found["stages"]:
        assert set(stage["timings"]) == {"entropy-cli", "plain"} and len(stage["ratios"]) == 3
        for timing in stage["timings"].values():
            assert 0 < timing["fastest_ms_per_image"] <= timing["ms_per_image"]
    assert found["errors"]["tokens"] == 8 * 5
    assert found["errors"]["quantiser_tokens_changed"] == 0
    assert found["errors"]["quantiser_entropy"] < 1e-5 and found["errors"]["entropy"] < 1e-4
    assert set(found["peak_memory_bytes"]) == {"entropy-cli", "plain"}
    assert others.is_alive()  # only the contenders' processes are ended
    others.kill()
    others.join()


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_checkpoint_and_a_folder_of_one_s_own_are_timed(cli, checkpoint, images):
    run = ("bench", "--device", "cpu", "--ckpt", checkpoint, "--data", images, "--images", 20)
    code, out, err = cli(*run, "--precision", "bf16", "--workers", 0)
    assert code == 0, err
    for words in ("decode", "end to end", "share of floor", "bf16", "peak memory", "20 images"):
        assert words in out
    assert "plain" not in out and "speedup" not in out and "load, ms" in out
    assert max(map(len, out.splitlines())) <= 80 and out.count("\n") <= 24


@pytest.mark.usefixtures("in_this_process")
def test_ratios_and_times_are_per_image_and_plain_over_own(bench, monkeypatch):
    """Eight images in 2 s by the program and in 6 s by the plain loop, decoded 16 times over."""
    seconds = {"EntropyCli": 2.0, "Baseline": 6.0}
    monkeypatch.setattr(
        "entropy_cli.commands.bench.bench.time_call",
        lambda call, _: seconds[type(call.__self__).__name__],
    )
    for stage in bench(*SMALL, "--baseline")["stages"]:
        times = 16 if stage["name"] == "decode" else 1
        ms = {name: timing["ms_per_image"] for name, timing in stage["timings"].items()}
        assert ms == {"entropy-cli": 250 / times, "plain": 750 / times}
        assert stage["ratios"] == [3.0] * 3


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("own", [False, True])
def test_a_generator_is_timed_beside_a_plain_forward(bench, tmp_path, own):
    model = "d1"
    if own:
        spec = find_family_of_random_weights(tmp_path)
        save_file(random_generator(2, spec, 7), tmp_path / "var.safetensors")
        model = tmp_path / "var.safetensors"
    found = bench(*SMALL, "--baseline", "--model", model)
    assert [stage["name"] for stage in found["stages"]][-2:] == ["generator", "end to end"]
    assert all(len(stage["ratios"]) == 3 for stage in found["stages"])
    assert found["errors"]["cross_entropy"] < 1e-5
    assert found["workload"]["model"].endswith(
        "var.safetensors" if own else "random-generator.safetensors"
    )
    blocks = 1 + own
    products = 2 * 12 * (64 * blocks) ** 2 * blocks  # of each of the 5 tokens
    assert found["work"]["generator"]["flop"] > 5 * products


def test_the_plain_forward_is_the_same_generator(checkpoint):
    """With one mask for all scales, in place of one attention for each."""
    tokenizer = load_tokenizer(checkpoint).tokenizer
    weights = random_generator(2, tokenizer.spec, 3)
    found = match_generator(Checkpoint.of_tensors(Path("x"), weights))
    idx_BL = torch.randint(48, (3, 85), generator=torch.manual_seed(1))
    scorer = Scorer(found.build(), tokenizer, torch.zeros(3, dtype=torch.int64), 0, soft=False)
    losses = scorer.score(range(3), idx_BL, (), [()] * 4)
    loss, top1, top5, entropy = PlainForward(found.build(), tokenizer).losses(idx_BL).tolist()
    assert losses.nats_B.sum().item() / idx_BL.numel() == pytest.approx(loss, abs=1e-6)
    for sums_BS, mean in (
        (losses.top1_BS, top1),
        (losses.top5_BS, top5),
        (losses.predictive_entropy_BS, entropy),
    ):
        assert sums_BS.sum().item() / idx_BL.numel() == pytest.approx(mean, abs=1e-5)
    assert loss > entropy and 0 < entropy < math.log(48)


def test_what_can_not_be_timed_is_one_line(cli, tmp_path, checkpoint):
    assert cli("bench", "--model", "d0")[0] == 2 and cli("bench", "--model", "d100")[0] == 2
    code, _, err = cli("bench", "--ckpt", checkpoint, "--model", checkpoint)
    assert code == 3 and "is a tokenizer, not a generator" in err.splitlines()[-1]
    assert cli("bench", "--temperature", "auto")[0] == 2
    assert cli("bench", "--width", 40)[0] == 2
    assert cli("bench", "--rounds", 2)[0] == 2
    code, _, err = cli("bench", "--ckpt", checkpoint, "--data", tmp_path)
    assert code == 3 and "no images found" in err.splitlines()[-1]
    code, _, err = cli("bench", "--ckpt", tmp_path / "absent.pth")
    assert code == 3 and "absent.pth" in err.splitlines()[-1]


def test_work_is_counted():
    conv = nn.Conv2d(3, 8, 3, padding=1)
    x = torch.zeros(2, 3, 16, 16)
    expected = Work(2 * 2 * 16 * 16 * 3 * 8 * 9, 4 * (x.numel() + conv.weight.numel() + 8 + 2 * 8 * 256))
    assert count_work(lambda: functional.silu(conv(x))) == expected
    with torch.inference_mode():
        assert count_work(lambda: conv(x)) == expected
    assert Peak(100.0, 10.0).least_seconds(Work(50.0, 20.0)) == 2.0


def test_the_quantisers_work_is_that_of_the_products_with_all_codes(checkpoint):
    tokenizer = load_tokenizer(checkpoint).tokenizer
    z_LC, code_VC = torch.zeros(1 + 4 + 16 + 64, 6), tokenizer.codebook(0).codes_VC
    work = quantiser_work(tokenizer.spec)
    assert work.flop == count_work(lambda: z_LC @ code_VC.T).flop
    assert work.traffic == 2 * 4 * len(z_LC) * len(code_VC)  # a float32 logit, written and read


def test_the_plain_loop_is_the_same_tokenizer(checkpoint, pictures):
    tokenizer = load_tokenizer(checkpoint).tokenizer
    exact = tokenizer.encode(pictures)
    plain = PlainLoop(load_tokenizer(checkpoint).tokenizer, (1.0, 0.5))
    rest = plain.tokenizer.encode(pictures)
    torch.testing.assert_close(rest, exact, atol=2e-4, rtol=1e-4)
    entropy_ST, marginal_STV, idx_BL = plain.quantise(rest)
    assert marginal_STV.shape == (4, 2, 48)
    at = 0
    for s in range(4):
        sums = assign(tokenizer.vectors(rest, s), tokenizer.codebook(s), (1.0, 0.5))
        assert torch.equal(sums.idx_Bl, idx_BL[:, at : at + sums.tokens])
        mean_T = sums.entropy_BT.mean(0) / sums.tokens
        torch.testing.assert_close(mean_T.float(), entropy_ST[s], atol=1e-5, rtol=0)
        rest = tokenizer.subtract(rest, sums.idx_Bl, s) if s < 3 else rest
        at += sums.tokens


def test_a_warm_up_longer_than_the_measuring_leaves_something_measured():
    peak = measure_peak(CPU, torch.float32)
    assert 0 < peak.flop_per_s < 1e16 and 0 < peak.bytes_per_s < 1e14
    assert peak.least_seconds(Work(1e9, 1e6)) > 0
