"""`evaluate` in Python: a model that is a callable, on tokens of a callable, against plain sums."""

import math

import numpy as np
import pytest
import torch

import entropy_cli
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.results.evaluation import read_evaluation

IMAGES, TOKENS, CODES, NULL = 40, 6, 5, 3


@pytest.fixture(scope="module")
def latents_MlC():
    return torch.randn(IMAGES, TOKENS, 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def codes_VC():
    return torch.randn(CODES, 2, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def tables():
    """Logits by class, the token before (CODES for none) and the code."""
    return torch.randn(NULL + 1, CODES + 1, CODES, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def bigram(tables):
    def predict(idx_BL, label_B):
        none_B1 = torch.full_like(idx_BL[:, :1], CODES)
        before_BL = torch.cat([none_B1, idx_BL[:, :-1]], 1)
        return tables[label_B[:, None], before_BL]

    return predict


def run(latents_MlC, codes_VC, model, **more):
    options = {"labels": [m % NULL for m in range(IMAGES)], "classes": NULL, "temperature": 0.5, **more}
    batches = [latents_MlC[:17], latents_MlC[17:]]
    return entropy_cli.evaluate(batches, lambda batch: batch, model, codebook=codes_VC, **options)


def plain(latents_MlC, codes_VC, tables, label, image):
    """Nats of an image, its KL at T = 0.5, its hits and entropies, one token after the other."""
    before, nats, kl, top1, entropy = CODES, 0.0, 0.0, 0, 0.0
    for z_C in latents_MlC[image].double():
        distance = [float(((z_C - code_C) ** 2).sum()) for code_C in codes_VC.double()]
        token = distance.index(min(distance))
        logits = tables[label, before].double().tolist()
        log_z = math.log(sum(map(math.exp, logits)))
        log_p = [logit - log_z for logit in logits]
        weights = [math.exp(-d / 0.5) for d in distance]
        q = [w / sum(weights) for w in weights]
        nats -= log_p[token]
        kl += sum(a * (math.log(a) - b) for a, b in zip(q, log_p, strict=True))
        top1 += log_p[token] == max(log_p)
        entropy -= sum(math.exp(b) * b for b in log_p)
        before = token
    return nats, kl, top1, entropy


def test_a_callable_against_plain_sums(latents_MlC, codes_VC, bigram, tables, tmp_path):
    found = run(latents_MlC, codes_VC, bigram, null_class=NULL, label_check=10)
    rows = [plain(latents_MlC, codes_VC, tables, m % NULL, m) for m in range(IMAGES)]
    nats, kl, top1, entropy = (sum(column) / (IMAGES * TOKENS) for column in zip(*rows, strict=True))
    mean = found.average.token_weighted
    assert mean.cross_entropy.value == pytest.approx(nats, abs=1e-6)
    assert mean.kl.value == pytest.approx(kl, abs=1e-6)
    assert mean.accuracy_top1.value == pytest.approx(top1, abs=1e-12)
    assert mean.accuracy_top5.value == 1
    assert mean.predictive_entropy.value == pytest.approx(entropy, abs=1e-6)
    assignment = found.estimate.average.token_weighted.assignment_entropy.value
    assert mean.target_cross_entropy.value == pytest.approx(assignment + mean.kl.value, abs=1e-12)
    assert mean.reducible.value == pytest.approx(mean.cross_entropy.value - assignment, abs=1e-12)
    nulls = [plain(latents_MlC, codes_VC, tables, NULL, m)[0] for m in range(10)]
    null, own = sum(nulls) / (10 * TOKENS), sum(row[0] for row in rows[:10]) / (10 * TOKENS)
    assert mean.cross_entropy_null.value == pytest.approx(null, abs=1e-6)
    assert mean.as_logged.value == pytest.approx(0.9 * own + 0.1 * null, abs=1e-6)
    worth = [a - row[0] for a, row in zip(nulls, rows, strict=False)]
    centre = sum(worth) / 10
    se = math.sqrt(sum((w - centre) ** 2 for w in worth) / 90)
    assert found.labels.check.gain.value == pytest.approx(centre, abs=1e-5)
    assert found.labels.check.gain.se == pytest.approx(se, rel=1e-5)
    found.write(tmp_path / "e.json")
    assert read_evaluation(tmp_path / "e.json") == found
    assert entropy_cli.read_result(tmp_path / "e.json").data.images_used == IMAGES


def test_the_same_model_as_the_estimate(latents_MlC, codes_VC, bigram):
    found = run(latents_MlC, codes_VC, bigram)
    alone = entropy_cli.estimate([latents_MlC], lambda batch: batch, codebook=codes_VC, temperature=0.5)
    assert found.estimate.scales == alone.scales and found.estimate.average == alone.average


def test_an_even_guess_is_ln_v(latents_MlC, codes_VC):
    found = run(latents_MlC, codes_VC, lambda idx_BL, _: np.zeros((*idx_BL.shape, CODES)))
    assert found.average.token_weighted.cross_entropy.value == pytest.approx(math.log(CODES), abs=1e-7)


@pytest.mark.parametrize(
    "more, words",
    [
        ({"labels": [0] * 39}, "got 39 for at least 40 images"),
        ({"labels": [0] * 41}, "got 41 for 40 images"),
        ({"labels": [7] * 40}, "got 7, expected 0 to 2"),
        ({"labels": [0.5] * 40}, "expected one whole number for each image"),
        ({"labels": "auto"}, "is for a folder"),
        ({"classes": 0}, "classes 0: expected a whole number from 1"),
        ({"null_class": -1}, "null_class -1"),
        ({"temperature": 0}, "temperature 0"),
    ],
)
def test_what_does_not_fit_is_said(latents_MlC, codes_VC, bigram, more, words):
    with pytest.raises(EntropyCliError, match=words):
        run(latents_MlC, codes_VC, bigram, **more)


def sees_all(idx_BL, _):
    """Logits without a mask: those of all tokens but the last see all of the others."""
    onehot_BLV = torch.nn.functional.one_hot(idx_BL, CODES).float()
    seen_BLV = onehot_BLV.sum(1, keepdim=True) - onehot_BLV
    return torch.cat([seen_BLV[:, :-1], torch.zeros_like(seen_BLV[:, -1:])], 1)


def sees_itself(idx_BL, _):
    """Logits that are one place too late: only those of the last token are no copy of it."""
    onehot_BLV = torch.nn.functional.one_hot(idx_BL, CODES).float()
    return torch.cat([onehot_BLV[:, :-1], torch.zeros_like(onehot_BLV[:, -1:])], 1)


@pytest.mark.parametrize(
    "model, words",
    [
        (None, "expected a function"),
        (lambda idx_BL, _: idx_BL, "expected a floating-point tensor"),
        (lambda idx_BL, _: torch.zeros(*idx_BL.shape, CODES + 1), r"got shape \(16, 6, 6\)"),
        (lambda idx_BL, _: torch.nn.functional.one_hot(idx_BL, CODES).float(), "it sees what it is"),
        (lambda idx_BL, _: torch.nn.functional.one_hot(idx_BL, CODES).log(), "it sees what it is"),
        (sees_itself, "its logits of token 2 change when token 2 does"),
        (sees_all, "its logits of token 1 change when token 2 does: .* mask its attention"),
        (lambda idx_BL, _: torch.full((*idx_BL.shape, CODES), torch.nan), "loss is NaN"),
    ],
)
def test_a_model_that_can_not_be_right_is_refused(latents_MlC, codes_VC, model, words):
    with pytest.raises(EntropyCliError, match=words):
        run(latents_MlC, codes_VC, model)


def test_labels_of_a_folder(images, checkpoint, tmp_path):
    tokenizer, given = entropy_cli.load_tokenizer(checkpoint), []

    def model(idx_BL, label_B):
        given.extend(label_B.tolist())
        return torch.zeros(*idx_BL.shape, 48)

    def evaluate(labels, null_class=4):
        given.clear()
        more = {"labels": labels, "classes": 4, "null_class": null_class, "label_check": 0}
        return entropy_cli.evaluate(images, tokenizer, model, temperature=1, workers=0, **more).labels

    found = evaluate("auto")
    assert (found.source, found.classes_seen) == ("folders", 4) and {*given} == {0, 1, 2, 3}
    paths = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.jpg"))
    (tmp_path / "l.csv").write_text("".join(f"{path},2\n" for path in paths))
    assert evaluate(tmp_path / "l.csv").source == "file" and {*given} <= {0, 2}  # 0 fills batches up
    assert evaluate("none").source == "none" and {*given} <= {0, 4}
    with pytest.raises(EntropyCliError, match="labels none: give the model's label for no class"):
        evaluate("none", null_class=None)
    with pytest.raises(EntropyCliError, match="for a folder give"):
        evaluate([0] * len(paths))
