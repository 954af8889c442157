"""Losses of tokens and their sums, against plain arithmetic, torch and known values."""

import json
import math
from dataclasses import fields

import pytest
import torch
from torch.nn.functional import cross_entropy

from entropy_cli.commands.loss.findings import findings
from entropy_cli.commands.loss.loss_sums import LossSums, position_groups, smoothed_floor
from entropy_cli.commands.loss.result import Losses, LossResult
from entropy_cli.entropy.token_losses import (
    LABEL,
    PREDICTIVE,
    TARGET,
    TARGET_ENTROPY,
    TOP1,
    TOP5,
    UNIFORM,
    Scratch,
    quantities,
    token_losses,
)
from entropy_cli.results.floors import Level
from tests.plain_loss import plain_losses


def sums_of(logits_BLV, label_BL, q_BLV=None, *, ignore=-100, smoothing=False, patch_nums=None):
    B, L, _ = logits_BLV.shape
    names = quantities(labels=label_BL is not None, targets=q_BLV is not None, smoothing=smoothing)
    counted_BL = torch.ones(B, L, dtype=torch.bool) if label_BL is None else label_BL != ignore
    loss_BLQ = torch.zeros(B, L, len(names), dtype=torch.float64)
    loss_BLQ[counted_BL] = token_losses(
        logits_BLV[counted_BL],
        None if label_BL is None else label_BL[counted_BL],
        None if q_BLV is None else q_BLV[counted_BL],
        smoothing=smoothing,
    )
    return LossSums.from_rows(names, loss_BLQ, counted_BL, position_groups(patch_nums, L))


def example(B=6, L=5, V=11, seed=0):
    g = torch.Generator().manual_seed(seed)
    logits_BLV = torch.randn(B, L, V, generator=g, dtype=torch.float64) * 3
    label_BL = torch.randint(V, (B, L), generator=g)
    label_BL[torch.rand(B, L, generator=g) < 0.2] = -100
    q_BLV = torch.randn(B, L, V, generator=g, dtype=torch.float64).softmax(-1)
    return logits_BLV, label_BL, q_BLV


@pytest.fixture(scope="module")
def vectors(shared):
    return {v["id"]: v for v in json.loads((shared / "design/test_vectors.json").read_text())["vectors"]}


def test_every_quantity_agrees_with_plain_arithmetic():
    logits_BLV, label_BL, q_BLV = example()
    label_BL[2] = -100  # a whole row
    for q in (None, q_BLV):
        sums = sums_of(logits_BLV, label_BL, q, smoothing=True)
        plain = plain_losses(
            logits_BLV.tolist(), label_BL.tolist(), None if q is None else q.tolist(), smoothing=0.2
        )
        assert int(sums.tokens_G) == plain["tokens"] and int(sums.rows_G) == 5
        assert int(sums.ignored_G) == 30 - plain["tokens"]
        for name in (PREDICTIVE, LABEL, TOP1, TOP5):
            assert sums.mean(name, 0) == pytest.approx(plain[name], abs=1e-12), name
        smoothed = 0.8 * sums.mean(LABEL, 0) + 0.2 * sums.mean(UNIFORM, 0)
        assert smoothed == pytest.approx(plain["smoothed_cross_entropy"], abs=1e-12)
        assert smoothed_floor(0.2, 11) == pytest.approx(plain["smoothed_floor"], abs=1e-12)
        assert sums.standard_error(0) == pytest.approx(plain["standard_error"], rel=1e-9)
        if q is not None:
            assert sums.mean(TARGET, 0) == pytest.approx(plain["cross_entropy"], abs=1e-12)
            assert sums.mean(TARGET_ENTROPY, 0) == pytest.approx(plain["target_entropy"], abs=1e-12)


def test_the_cross_entropies_are_those_of_torch():
    logits_BLV, label_BL, q_BLV = example(seed=1)
    sums = sums_of(logits_BLV, label_BL, q_BLV, smoothing=True)
    flat_NV, label_N = logits_BLV.flatten(0, 1), label_BL.flatten()
    assert sums.mean(LABEL, 0) == pytest.approx(cross_entropy(flat_NV, label_N).item(), abs=1e-12)
    epsilon = 0.1
    expected = cross_entropy(flat_NV, label_N, label_smoothing=epsilon).item()
    found = (1 - epsilon) * sums.mean(LABEL, 0) + epsilon * sums.mean(UNIFORM, 0)
    assert found == pytest.approx(expected, abs=1e-12)
    kept_N = label_N != -100
    expected = cross_entropy(flat_NV[kept_N], q_BLV.flatten(0, 1)[kept_N]).item()
    assert sums.mean(TARGET, 0) == pytest.approx(expected, abs=1e-12)


def test_the_known_identity_of_cross_entropy(vectors):
    vector = vectors["ce_identity"]
    gt, pred = (torch.tensor([vector["input"][k]], dtype=torch.float64) for k in ("gt", "pred"))
    entropy, soft = token_losses(pred.log(), None, gt)[0, 1:].tolist()
    assert soft == pytest.approx(vector["expected"]["CE"], abs=vector["atol"])
    assert entropy == pytest.approx(vector["expected"]["H"], abs=vector["atol"])
    assert soft - entropy == pytest.approx(vector["expected"]["KL"], abs=vector["atol"])


def test_the_known_smoothed_label(vectors):
    vector = vectors["label_smoothing"]
    given, expected = vector["input"], vector["expected"]
    logits_NV = torch.tensor([given["probs"]], dtype=torch.float64).log()
    loss_Q = token_losses(logits_NV, torch.tensor([given["target"]]), None, smoothing=True)[0]
    epsilon = given["label_smoothing"]
    smoothed = (1 - epsilon) * loss_Q[1] + epsilon * loss_Q[-1]
    assert smoothed.item() == pytest.approx(expected["CE_smoothed"], abs=vector["atol"])
    assert loss_Q[1].item() == pytest.approx(expected["CE_plain"], abs=vector["atol"])
    assert smoothed_floor(epsilon, 4) == pytest.approx(expected["floor"], abs=vector["atol"])


@pytest.mark.parametrize("V", [4096, 16384])
def test_an_even_guess_costs_the_log_of_the_vocabulary(vectors, V):
    label_N = torch.tensor([0, 1, 4, 5, V - 1])
    loss_NQ = token_losses(torch.full((5, V), -7.5, dtype=torch.bfloat16), label_N, None)
    expected = vectors["uniform_4096"]["expected"][f"H{V}"]
    assert loss_NQ[:, :2].flatten().tolist() == pytest.approx([expected] * 10, abs=1e-9)
    assert loss_NQ[:, 2].tolist() == [1, 0, 0, 0, 0]  # of equal ones the lower number is likelier
    assert loss_NQ[:, 3].tolist() == [1, 1, 1, 0, 0]


def test_ties_of_16_bit_logits_rank_as_a_stable_sort_does():
    g = torch.Generator().manual_seed(2)
    logits_NV = torch.randint(6, (200, 9), generator=g).to(torch.float16)
    label_N = torch.randint(9, (200,), generator=g)
    order_NV = logits_NV.float().sort(dim=1, descending=True, stable=True).indices
    loss_NQ = token_losses(logits_NV, label_N, None)
    is_label_NV = order_NV == label_N[:, None]
    assert torch.equal(loss_NQ[:, 2] == 1, is_label_NV[:, 0])
    assert torch.equal(loss_NQ[:, 3] == 1, is_label_NV[:, :5].any(1))


def test_masked_codes_are_as_if_they_were_not_there():
    logits_NV = torch.tensor([[1.0, -torch.inf, 3.0, -2e4]])
    q_NV = torch.tensor([[0.25, 0.0, 0.75, 0.0]])
    found = token_losses(logits_NV, torch.tensor([2]), q_NV)
    expected = token_losses(logits_NV[:, [0, 2]], torch.tensor([1]), q_NV[:, [0, 2]])
    assert torch.equal(found, expected) and found.isfinite().all()
    far = token_losses(logits_NV, torch.tensor([3]), None)[0, 1].item()
    assert far == pytest.approx(20003 + math.log1p(math.exp(-2)), abs=1e-9)


def test_the_input_is_not_written_to_and_scratch_memory_changes_nothing():
    logits_BLV, label_BL, _ = example(seed=3)
    logits_NV, label_N = logits_BLV.flatten(0, 1), label_BL.flatten().clamp(min=0)
    before, scratch = logits_NV.clone(), Scratch()
    expected = token_losses(logits_NV, label_N, None)
    for rows in (30, 4, 17):
        found = token_losses(logits_NV[:rows], label_N[:rows], None, scratch=scratch)
        assert torch.equal(found, expected[:rows])
    assert torch.equal(logits_NV, before)


def test_sums_of_parts_are_the_sums_of_all():
    logits_BLV, label_BL, q_BLV = example(B=9, seed=4)
    whole = sums_of(logits_BLV, label_BL, q_BLV, patch_nums=(1, 2))
    parts = [sums_of(logits_BLV[i], label_BL[i], q_BLV[i], patch_nums=(1, 2))
             for i in (slice(0, 1), slice(1, 6), slice(6, 9))]  # fmt: skip
    total = parts[0] + parts[1] + parts[2]
    for name in ("tokens_G", "ignored_G", "rows_G"):
        assert torch.equal(getattr(total, name), getattr(whole, name))
    assert total.sum_GQ.flatten().tolist() == pytest.approx(whole.sum_GQ.flatten().tolist(), abs=1e-12)
    for group in range(3):
        assert total.standard_error(group) == pytest.approx(whole.standard_error(group), rel=1e-9)


def test_each_scale_is_its_own_positions():
    logits_BLV, label_BL, _ = example(B=7, L=14, seed=5)
    sums = sums_of(logits_BLV, label_BL, patch_nums=(1, 2, 3))
    for group, positions in enumerate((slice(0, 1), slice(1, 5), slice(5, 14), slice(0, 14))):
        plain = plain_losses(logits_BLV[:, positions].tolist(), label_BL[:, positions].tolist())
        assert sums.mean(LABEL, group) == pytest.approx(plain["cross_entropy"], abs=1e-12)
        assert sums.standard_error(group) == pytest.approx(plain["standard_error"], rel=1e-9)


def test_the_interval_over_rows_covers_although_tokens_of_a_row_are_alike():
    """The mean loss of rows that differ: 95 % of the intervals hold the true mean, 0."""
    g = torch.Generator().manual_seed(6)
    groups_LG = position_groups(None, 20)
    covered = 0
    for _ in range(400):
        loss_BL = torch.randn(30, 1, generator=g, dtype=torch.float64).expand(30, 20)
        counted_BL = torch.rand(30, 20, generator=g) < 0.7
        sums = LossSums.from_rows((LABEL,), (loss_BL * counted_BL)[..., None], counted_BL, groups_LG)
        covered += abs(sums.mean(LABEL, 0)) <= sums.half_width(0)
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize(("ceiling", "is_above"), [(4.85, True), (4.95, False)])
def test_a_loss_is_above_the_unigram_entropy_if_its_interval_is(ceiling, is_above):
    known = {"tokens": 9, "cross_entropy": 5.0, "ci95": (4.9, 5.1)}
    losses = Losses(**({field.name: None for field in fields(Losses)} | known))
    settings = {"shift": False, "targets": None}
    result = LossResult(4096, "image", 9, losses, [], None, [], settings, {})
    levels = [Level(1.0, ceiling=ceiling)]
    found = [one.id for one in findings(result, None, levels, like_probabilities=False)]
    assert ("above_unigram" in found) == is_above
