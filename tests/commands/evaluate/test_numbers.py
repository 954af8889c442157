"""Every number of an evaluation, against a plain computation in float64, image by image."""

import csv
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from entropy_cli.entropy.jackknife import t_quantile
from entropy_cli.images.decode import read_image
from entropy_cli.images.image_set import GROUPS, find_images
from entropy_cli.images.labels import find_labels
from entropy_cli.streaming.coarser_scales import teacher_inputs
from entropy_cli.tokenizers.registry import load_tokenizer
from tests.commands.evaluate.conftest import (
    AVERAGES,
    CLASSES,
    assert_same_losses,
    parts_of,
    zero_head,
)
from tests.conftest import IMAGE_SIZE, PATCH_NUMS
from tests.generators.reference import var_logits
from tests.reference import entropy, reference

TOKENS = [n * n for n in PATCH_NUMS]
SPEC = {"width": 32, "heads": 4, "depth": 2, "patch_nums": PATCH_NUMS}
TEMPERATURES = (1, 0.5)


@pytest.fixture(scope="module")
@torch.inference_mode()
def plain(images, checkpoint, model, whole):
    """Means over the tokens of each image at each scale, (M, S), by name, and what they are of."""
    found, tokenizer = find_images(images), load_tokenizer(checkpoint).tokenizer
    names = [found.name(i) for i in range(70)]
    label_M = torch.from_numpy(find_labels(names, "auto", CLASSES, CLASSES).index_N)
    idx_ML = torch.from_numpy(np.load(whole[1]["tokens"]).astype(np.int64))
    weights, inputs_MLC = load_file(model), teacher_inputs(tokenizer, idx_ML)
    means = {}
    for name, labels in (("", label_M), ("null", torch.full_like(label_M, CLASSES))):
        log_p = var_logits(weights, SPEC, labels, idx_ML, inputs_MLC).log_softmax(-1)
        own = log_p.gather(-1, idx_ML[..., None])
        lower = torch.arange(48) < idx_ML[..., None]
        rank = ((log_p > own) | ((log_p == own) & lower)).sum(-1)
        means |= {f"cross_entropy_{name}".rstrip("_"): by_scale(-own[..., 0])}
        if not name:
            means |= {"accuracy_top1": by_scale(rank < 1), "accuracy_top5": by_scale(rank < 5)}
            means |= {"predictive_entropy": by_scale(-(log_p.exp() * log_p).sum(-1))}
            log_p_MlVs = log_p.split(TOKENS, 1)
    soft = {t: [[], []] for t in TEMPERATURES}  # H(q), KL
    for i in range(70):
        rest = tokenizer.encode(read_image(found.locate(i), tokenizer.spec.crop.apply)[None])
        entropies, kls = ({t: [] for t in TEMPERATURES} for _ in range(2))
        for s, idx_Ml in enumerate(idx_ML.split(TOKENS, 1)):
            z_lC = tokenizer.vectors(rest, s)[0].double()
            codes_VC = tokenizer.codebook(s).codes_VC.double()
            for t in TEMPERATURES:
                q_lV = (-torch.cdist(z_lC, codes_VC).square() / t).softmax(1)
                kls[t].append(
                    (torch.special.xlogy(q_lV, q_lV) - q_lV * log_p_MlVs[s][i]).sum(1).mean().item()
                )
                found_q = reference(z_lC[None].numpy(), codes_VC.numpy(), "l2", t)
                entropies[t].append(found_q["assignment_entropy"])
            if s < 3:
                rest = tokenizer.subtract(rest, idx_Ml[i : i + 1], s)
        for t in TEMPERATURES:
            soft[t][0].append(entropies[t])
            soft[t][1].append(kls[t])
    for t in TEMPERATURES:
        means |= {f"A {t}": np.array(soft[t][0]), f"KL {t}": np.array(soft[t][1])}
    group_M = np.array([found.group(i) for i in range(70)])
    return means, group_M, idx_ML.numpy(), names, label_M.tolist()


def by_scale(value_ML):
    return torch.stack([part.double().mean(1) for part in value_ML.split(TOKENS, 1)], 1).numpy()


def weights_of():
    share = np.array(TOKENS) / sum(TOKENS)
    return [*np.eye(4), share, np.full(4, 0.25), np.eye(4)[3]]


def standard_error(value, deleted_G, group_M):
    """Of the delete-a-group jackknife with unequal groups, by its pseudo-values."""
    total, used = 0.0, sorted(set(group_M))
    h_G = [len(group_M) / sum(group_M == g) for g in used]
    pseudo = [h * value - (h - 1) * d for h, d in zip(h_G, deleted_G, strict=True)]
    mean = len(used) * value - sum((1 - 1 / h) * d for h, d in zip(h_G, deleted_G, strict=True))
    for h, p in zip(h_G, pseudo, strict=True):
        total += (p - mean) ** 2 / (h - 1)
    return math.sqrt(total / len(used))


def check(got, value_M, group_M, close=2e-6):
    """An estimate that is the mean of a number of each image."""
    deleted_G = [value_M[group_M != g].mean() for g in sorted(set(group_M))]
    se = standard_error(value_M.mean(), deleted_G, group_M)
    assert got["value"] == got["plug_in"] == pytest.approx(value_M.mean(), abs=close)
    assert got["se"] == pytest.approx(se, rel=1e-4, abs=1e-7)
    half = t_quantile(len(set(group_M)) - 1) * se
    assert got["ci95"][1] == pytest.approx(value_M.mean() + half, rel=1e-4)


def test_means_over_tokens_and_their_errors(plain, whole):
    means, group_M, *_ = plain
    checked_M = np.arange(70) < 64
    for (_, part), weight_S in zip(parts_of(whole[0]), weights_of(), strict=True):
        for name in ("cross_entropy", "predictive_entropy", "accuracy_top1", "accuracy_top5"):
            check(part[name], means[name] @ weight_S, group_M)
        assert part["perplexity"]["value"] == pytest.approx(
            math.exp((means["cross_entropy"] @ weight_S).mean()), rel=1e-5
        )
        label_M, null_M = (
            (means[name] @ weight_S)[checked_M] for name in ("cross_entropy", "cross_entropy_null")
        )
        check(part["cross_entropy_null"], null_M, group_M[checked_M])
        check(part["as_logged"], 0.9 * label_M + 0.1 * null_M, group_M[checked_M])


def test_differences_have_errors_of_their_own(plain, whole):
    """What two means share in each image cancels."""
    means, group_M, idx_ML, *_ = plain
    for (_, part), weight_S in zip(parts_of(whole[0]), weights_of(), strict=True):
        loss_M, entropy_M = means["cross_entropy"] @ weight_S, means["A 1"] @ weight_S
        check(part["reducible"], loss_M - entropy_M, group_M)

        def gain(chosen_M, loss_M=loss_M, weight_S=weight_S):
            counts = [np.bincount(p.ravel(), minlength=48) for p in split(idx_ML[chosen_M])]
            unigram_S = [entropy(c / c.sum()) for c in counts]
            return weight_S @ unigram_S - loss_M[chosen_M].mean()

        value = gain(np.full(70, True))  # noqa: FBT003
        deleted_G = [gain(group_M != g) for g in sorted(set(group_M))]
        se = standard_error(value, deleted_G, group_M)
        got = part["gain"]
        assert got["plug_in"] == pytest.approx(value, abs=2e-6)
        assert got["value"] == pytest.approx(
            part["unigram_entropy"]["value"] - part["cross_entropy"]["value"], abs=1e-12
        )
        assert got["se"] == pytest.approx(se, rel=1e-4)
        assert got["note"] == part["unigram_entropy"]["note"]
        hypotenuse = math.hypot(part["cross_entropy"]["se"], part["assignment_entropy"]["se"])
        assert part["reducible"]["se"] != pytest.approx(hypotenuse, rel=1e-3)


def split(idx_ML):
    return np.split(idx_ML, np.cumsum(TOKENS)[:-1], 1)


def test_losses_of_soft_labels(plain, whole):
    means, group_M, *_ = plain
    result = whole[0]
    for t, at in zip(TEMPERATURES, result["temperatures"], strict=True):
        parts = [*at["scales"], *(at["average"][kind] for kind in AVERAGES)]
        for part, weight_S in zip(parts, weights_of(), strict=True):
            kl_M, entropy_M = means[f"KL {t}"] @ weight_S, means[f"A {t}"] @ weight_S
            check(part["kl"], kl_M, group_M, close=1e-5)
            check(part["target_cross_entropy"], kl_M + entropy_M, group_M, close=1e-5)
            total = part["assignment_entropy"]["value"] + part["kl"]["value"]
            assert part["target_cross_entropy"]["value"] == pytest.approx(total, abs=1e-12)
            assert part["kl"]["value"] >= 0
    first = result["temperatures"][0]
    for (_, part), soft in zip(
        parts_of(result), [*first["scales"], *(first["average"][kind] for kind in AVERAGES)], strict=True
    ):
        assert part["kl"] == soft["kl"]
        assert part["target_cross_entropy"] == soft["target_cross_entropy"]


def test_totals_the_worth_of_a_class_and_single_images(plain, whole):
    means, _, _, names, labels = plain
    result, files = whole
    nats_M = means["cross_entropy"] @ TOKENS
    assert result["total"]["nats_per_image"] == pytest.approx(nats_M.mean(), rel=1e-6)
    bits = nats_M.mean() / math.log(2) / IMAGE_SIZE**2
    assert result["total"]["bits_per_pixel"] == pytest.approx(bits, rel=1e-6)
    gain_M = ((means["cross_entropy_null"] - means["cross_entropy"]) @ TOKENS)[:64]
    found = result["labels"]["check"]
    assert found["images"] == 64
    assert found["gain"]["value"] == pytest.approx(gain_M.mean(), abs=2e-4)
    assert found["gain"]["se"] == pytest.approx(gain_M.std(ddof=1) / 8, rel=1e-4)
    with files["nats"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == names and [int(row["label"]) for row in rows] == labels
    assert [float(row["nats"]) for row in rows] == pytest.approx(nats_M.tolist(), rel=1e-6)
    order = sorted(range(70), key=lambda i: float(rows[i]["nats"]))
    ends = result["extremes"]
    assert [image["path"] for image in ends["best"]] == [names[i] for i in order[:8]]
    assert [image["path"] for image in ends["worst"]] == [names[i] for i in order[:-9:-1]]
    assert [image["nats"] for image in ends["best"]] == [float(rows[i]["nats"]) for i in order[:8]]


def test_replicates_and_history_are_of_the_cross_entropy(plain, whole):
    means, group_M, *_ = plain
    result = whole[0]
    for g in range(GROUPS):
        want_S = means["cross_entropy"][group_M != g].mean(0)
        assert result["replicates"]["cross_entropy"][g] == pytest.approx(want_S.tolist(), abs=2e-6)
    share = np.array(TOKENS) / sum(TOKENS)
    loss_M, entropy_M = means["cross_entropy"] @ share, means["A 1"] @ share
    points = result["cross_entropy_history"]
    assert [point["images"] for point in points] == [16, 32, 64, 70]
    for point in points:
        assert point["value"] == pytest.approx(loss_M[: point["images"]].mean(), abs=2e-6)
    last = result["history"][-1]
    assert last["images"] == 70 and last["value"] == pytest.approx(entropy_M.mean(), abs=2e-6)


def test_what_estimate_says_is_said_bit_for_bit(whole, estimate, options):
    result = whole[0]
    alone = estimate(*options[:4], *options[6:], "--ladder")
    for (_, got), (_, want) in zip(parts_of(result), parts_of(alone), strict=True):
        for key, value in want.items():
            assert got["unigram_perplexity" if key == "perplexity" else key] == value
    for key in ("tokenizer", "pooled"):
        assert result[key] == alone[key]
    assert result["ladder"]["rungs"] == alone["ladder"]["rungs"]
    for key, rows in alone["replicates"].items():
        assert result["replicates"][key] == rows


def test_a_head_of_zeros_gives_ln_v(evaluate, options, tmp_path):
    """Codes are then equally likely, and the lower one counts as likelier."""
    files = ("--save-tokens", tmp_path / "t.npy")
    result = evaluate(*options, "--model", zero_head(tmp_path / "m.safetensors"), *files)
    idx_ML = np.load(tmp_path / "t.npy")
    parts = [*split(idx_ML), idx_ML, None, split(idx_ML)[3]]
    for (_, part), idx_Ml in zip(parts_of(result), parts, strict=True):
        for name in ("cross_entropy", "predictive_entropy", "cross_entropy_null"):
            assert part[name]["value"] == pytest.approx(math.log(48), abs=1e-12)
        if idx_Ml is not None:
            assert part["accuracy_top1"]["value"] == pytest.approx((idx_Ml == 0).mean())
            assert part["accuracy_top5"]["value"] == pytest.approx((idx_Ml < 5).mean())
    assert result["labels"]["check"]["gain"]["value"] == 0
    assert_same_losses(result, result, 0)
