"""An evaluation as text: its summary on one screen, its tables, checks and notes."""

import dataclasses
import re

import pytest

from entropy_cli.entropy.quantity import UNDERSAMPLED
from entropy_cli.results.evaluation import LabelCheck, LabelsInfo, ModelPrecisionCheck
from entropy_cli.results.evaluations.checks import checks_of_losses, with_checks
from entropy_cli.results.evaluations.notes import notes
from entropy_cli.results.evaluations.provenance import provenance
from entropy_cli.results.evaluations.summary import summary
from entropy_cli.results.evaluations.tables import heading, losses_table
from entropy_cli.results.text import render
from tests.evaluations import MODEL, evaluation_of, mean


@pytest.fixture
def evaluation(estimated):
    return with_checks(evaluation_of(estimated))


def found(evaluation):
    """The severity of each check."""
    return {check.id: check.severity for check in with_checks(evaluation).estimate.checks}


def replaced(evaluation, name, part, **changes):
    """An evaluation with other losses in one average."""
    losses = dataclasses.replace(getattr(evaluation.average, part), **changes)
    return dataclasses.replace(
        evaluation, **{name: dataclasses.replace(evaluation.average, **{part: losses})}
    )


@pytest.mark.parametrize(
    "options", [{}, {"worth": None}, {"soft": False}, {"below": -1.5}, {"worth": -5}]
)
@pytest.mark.parametrize("units", ["nats", "bits"])
def test_the_summary_fits_a_screen(estimated, options, units):
    text = summary(with_checks(evaluation_of(estimated, **options)), units)
    assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 80
    assert "var_d4.pth: var, 1.43 M parameters" in text and "CE - A (may be negative)" in text
    assert ("KL(q||p)" in text) == options.get("soft", True)
    assert ("its floor A" in text) == options.get("soft", True) != ("assignment entropy A" in text)


def test_numbers_are_those_of_the_result(evaluation):
    text = render(evaluation, table=True, explain=True)
    losses, total = evaluation.average.token_weighted, evaluation.total
    low, high = losses.cross_entropy.ci95
    assert f"{losses.cross_entropy.value:.2f}  {low:.2f} to {high:.2f}" in re.sub(" {2,}", "  ", text)
    assert f"{total.nats_per_image:,.1f} nats/image, {total.bits_per_pixel:.4f} bits/pixel" in text
    assert (
        "top-1 25.0 %, top-5 50.0 %" in text and "worth 60.0 ± 8.2 nats/image (95 %, 64 images)" in text
    )
    rows = [line.split() for line in text.splitlines() if line.startswith("8 x 8")]
    assert f"{evaluation.scales[-1].cross_entropy.value:.4f}" in rows[0]
    assert f"{evaluation.scales[-1].kl.value:.4f}" in rows[1]
    bits = render(evaluation, "bits", table=True)
    assert f"{losses.cross_entropy.value / 0.6931471805599453:.4f}" in bits


def test_the_whole_text_fits_80_columns(evaluation):
    origin = {**evaluation.estimate.provenance, "data": "imagenet/val", "checkpoint": "vae.pth"}
    estimate = dataclasses.replace(evaluation.estimate, provenance=origin)
    evaluation = dataclasses.replace(evaluation, estimate=estimate)
    text = render(evaluation, table=True, explain=True)
    assert max(map(len, text.splitlines())) <= 80
    assert "no class" in text and "as_logged" in text and "rung" in text


def test_labels_are_checked_against_the_null_class(estimated):
    severities = {60.0: "ok", 5.0: "wrong", -30.0: "wrong", None: "care"}
    for worth, severity in severities.items():  # the standard error is 4
        assert found(evaluation_of(estimated, worth=worth))["labels"] == severity
    few = evaluation_of(estimated, worth=5.0)
    cases = ((15, 5.0, "care"), (16, 5.0, "wrong"), (15, -5.0, "care"), (15, -9.0, "wrong"))
    for images, worth, severity in cases:
        check = LabelCheck(images, mean(worth, 4.0))
        labels = dataclasses.replace(few.labels, check=check)
        assert found(dataclasses.replace(few, labels=labels))["labels"] == severity
    one = LabelsInfo("wnid", 1, LabelCheck(1, mean(3.0)), [])
    assert found(dataclasses.replace(evaluation_of(estimated), labels=one))["labels"] == "care"
    none = LabelsInfo("none", 1, None, [])
    evaluation = dataclasses.replace(evaluation_of(estimated), labels=none)
    assert found(evaluation)["labels"] == "care" and "the null class for all images" in summary(
        evaluation
    )


def test_a_loss_above_the_unigram_is_found_beyond_its_error(estimated):
    ceiling = estimated.average.token_weighted.ceiling
    unigram = estimated.average.token_weighted.unigram_entropy.known
    assert found(evaluation_of(estimated))["loss_above_unigram"] == "ok"
    above = evaluation_of(estimated, below=unigram - ceiling - 0.3)
    assert found(above)["loss_above_unigram"] == "wrong"
    half = above.average.token_weighted.cross_entropy.half_width
    assert (
        found(evaluation_of(estimated, below=unigram - ceiling - half / 2))["loss_above_unigram"]
        != "wrong"
    )


def test_a_loss_is_set_beside_the_rungs(estimated):
    lowest = estimated.ladder.lowest.upper95
    unigram = estimated.average.token_weighted.unigram_entropy.known
    below = with_checks(evaluation_of(estimated, below=unigram - lowest + 0.5))
    assert found(below)["loss_above_rung"] == "ok"
    assert "the lowest of the ladder" in summary(below)
    above = with_checks(evaluation_of(estimated, below=unigram - lowest - 0.5))
    assert found(above)["loss_above_rung"] == "care" and "ABOVE the" in summary(above)


def test_the_precision_of_the_model_is_set_beside_the_interval(estimated):
    evaluation = evaluation_of(estimated)
    half = evaluation.average.token_weighted.cross_entropy.half_width
    for cost, severity in ((half / 20, "ok"), (-half / 5, "care")):
        check = ModelPrecisionCheck(64, "fp32", [cost] * 4, cost)
        checked = dataclasses.replace(evaluation, model_precision_check=check)
        assert found(checked)["model_precision"] == severity
        assert "which against fp32 on the first 64" in " ".join(render(checked, explain=True).split())


def test_checks_of_the_entropy_alone_are_not_shown(evaluation):
    ids = {check.id for check in checks_of_losses(evaluation)}
    assert "labels_of_floor" not in ids and "few_images" in ids
    assert with_checks(evaluation) == evaluation  # once is enough


def test_notes_apply_where_they_should(estimated, evaluation):
    text = " ".join(notes(evaluation))
    assert "may be negative" in text and "as_logged" in text
    assert "worth 60 nats an image, more than ln 1,000 = 6.9" in text
    few = " ".join(notes(evaluation_of(estimated, worth=14.0)))  # within its error of 6.9
    assert "more than ln" not in few
    confident = mean(1.0, 0.001)
    over = replaced(evaluation, "average", "token_weighted", predictive_entropy=confident)
    assert "overconfident" in " ".join(notes(over)) and "confident" not in text
    assert "need latents" in notes(evaluation_of(estimated, soft=False))[0]
    gpt = dataclasses.replace(evaluation, model=dataclasses.replace(MODEL, family="llamagen-gpt"))
    assert "not mirrored" in " ".join(notes(gpt))


def test_bounds_keep_their_sign(estimated):
    scale = dataclasses.replace(
        estimated.average.token_weighted.unigram_entropy, note=UNDERSAMPLED, ci95=None
    )
    average = dataclasses.replace(estimated.average.token_weighted, unigram_entropy=scale)
    estimate = dataclasses.replace(
        estimated, average=dataclasses.replace(estimated.average, token_weighted=average)
    )
    text = summary(with_checks(evaluation_of(estimate)))
    assert re.search(r"gain over the unigram +≥ 0\.40", text)


def test_what_is_not_known_of_a_model_is_left_out(estimated):
    unknown = dict.fromkeys(("checkpoint_sha256", "parameters", "width", "depth", "heads", "classes"))
    model = dataclasses.replace(MODEL, family="function", **unknown)
    evaluation = with_checks(evaluation_of(estimated, model=model))
    text = render(evaluation, table=True, explain=True)
    assert "None" not in text and "Cross-entropy of function: " in text


@pytest.mark.parametrize(
    ("source", "classes", "words"),
    [
        ("wnid", 4, "by wnid, 4 classes"),
        ("file", 1, "from a file, 1 class"),
        ("none", 1, "the null class for all images"),
    ],
)
def test_the_provenance_says_how_labels_were_found(estimated, source, classes, words):
    evaluation = evaluation_of(estimated)
    labels = dataclasses.replace(evaluation.labels, source=source, classes_seen=classes)
    assert provenance(dataclasses.replace(evaluation, labels=labels))["labels"] == words


def test_the_heading_has_the_interval_and_cells_the_standard_error(estimated):
    evaluation = evaluation_of(estimated)
    entropy = evaluation.average.token_weighted.cross_entropy
    low, high = entropy.ci95
    interval = f"{entropy.value:.4f} nats per token, 95 % interval {low:.4f} to {high:.4f} ("
    assert interval in heading(evaluation)
    cell = f"{entropy.value:.4f} ± {entropy.se:.4f}"
    assert any(cell in row for row in losses_table(evaluation).rows)
