"""Reports of evaluations: one page of one, and models compared, paired where the images are the same."""

import csv
import dataclasses
import html
import io
import math
import re

import numpy as np
import pytest

from entropy_cli.core.figures import new_figure, styled
from entropy_cli.entropy.jackknife import t_quantile
from entropy_cli.images.synthetic import write_image_folder
from entropy_cli.results.evaluation import Extremes, ImageLoss
from entropy_cli.results.evaluations.checks import with_checks
from entropy_cli.results.page.loss_figures import figure_panels
from entropy_cli.results.page.model_comparison import loss_difference
from tests.evaluations import MODEL, evaluation_of

pytest.importorskip("matplotlib")


@pytest.fixture
def evaluation(estimated):
    return with_checks(evaluation_of(estimated))


@pytest.fixture
def report(cli, tmp_path):
    """Run `report` on results; gives the text of what it wrote."""

    def run(*results, kind="html"):
        paths = []
        for i, one in enumerate(results):
            paths.append(tmp_path / f"result{i}.json")
            one.write(paths[-1])
        output = tmp_path / f"report.{kind}"
        code, out, _ = cli("report", *paths, "-o", output)
        assert code == 0 and out == f"{output}\n"
        return output.read_bytes() if kind == "png" else output.read_text()

    return run


def text_of(page):
    return " ".join(html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S)).split())


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_page_shows_the_losses_the_checks_and_the_ladder(report, evaluation, estimated):
    page = report(evaluation)
    text, losses = text_of(page), evaluation.average.token_weighted
    for shown in (
        f"{losses.cross_entropy.value:.4f} nats per token, 95 % interval",
        "var_d4.pth: var, 1.43 M parameters",
        "Ladder of the hard tokens",
        "worth 60.0 ± 8.2 nats/image",
        f"{evaluation.scales[1].kl.value:.4f}",
        "Soft losses at each temperature",
        "labels help",
    ):
        assert shown in text, shown
    assert page.count("<svg") == 4 and "src=" not in page


def test_csv_has_every_number_in_full(report, evaluation, estimated):
    rows = rows_of(report(evaluation, kind="csv"))

    def value(quantity, scale, temperature="1.0"):
        (row,) = (
            r
            for r in rows
            if (r["quantity"], r["scale"], r["temperature"]) == (quantity, scale, temperature)
        )
        return float(row["value"])

    mean = evaluation.average.token_weighted
    for name in ("cross_entropy", "kl", "gain", "accuracy_top5", "perplexity", "reducible"):
        assert value(name, "token_weighted") == getattr(mean, name).value
        assert value(name, "8 x 8") == getattr(evaluation.scales[-1], name).value
    unigram = estimated.average.token_weighted
    assert value("unigram_perplexity", "token_weighted") == unigram.perplexity.value
    assert value("unigram_entropy", "token_weighted") == unigram.unigram_entropy.value
    other = evaluation.temperatures[1].average.last_scale
    assert value("target_cross_entropy", "last_scale", "0.5") == other.target_cross_entropy.value


def test_markdown_and_figures_are_written(report, evaluation):
    text = report(evaluation, kind="md")
    assert text.startswith("# Cross-entropy of var\\_d4.pth") or text.startswith(
        "# Cross-entropy of var_d4"
    )
    assert "## Losses" in text and "| 8 x 8 |" in text
    assert report(evaluation, kind="png").startswith(b"\x89PNG")
    bare = with_checks(evaluation_of(evaluation.estimate, worth=None, soft=False))
    bare = dataclasses.replace(bare, cross_entropy_history=[])
    text = report(bare, kind="md")
    assert "KL(q" not in text.split("## Notes")[0] and "no class" not in text


def drawn(draw):
    """The heights of all points, steps and bars on the axes, by label."""
    with styled():
        axes = new_figure(4, 3).add_subplot()
        draw(axes)
    found = {}
    for container in axes.containers:
        is_bars = hasattr(container, "patches")
        found[container.get_label()] = (
            [bar.get_height() for bar in container] if is_bars else container.lines[0].get_ydata()
        )
    return found


def test_figures_draw_the_numbers_of_the_result(evaluation, estimated):
    panels = list(figure_panels(evaluation).values())
    lines, bars, shares, _ = map(drawn, panels)
    cross = [losses.cross_entropy.value for losses in evaluation.scales]
    assert np.allclose(lines["cross-entropy"], cross)
    null = [losses.cross_entropy_null.value for losses in evaluation.scales]
    assert np.allclose(lines["null class"], null)
    floor = [scale.assignment_entropy.value for scale in estimated.temperatures[0].scales]
    assert np.allclose(bars["H(q): the floor"], floor)
    assert np.allclose(bars["KL(q||p): above it"], 0.7)
    assert np.allclose(shares["top-5"], 0.5)


def test_no_point_lies_above_the_axes(estimated):
    panels = figure_panels(evaluation_of(estimated, below=-4, worth=900.0))
    with styled():
        axes = new_figure(4, 3).add_subplot()
        panels["Cross-entropy of each scale"](axes)
    heights = [container.lines[0].get_ydata().max() for container in axes.containers]
    assert max(heights) < axes.get_ylim()[1]


def test_the_worst_and_best_images_are_on_the_page(report, evaluation, tmp_path):
    folder = tmp_path / "data"
    write_image_folder(folder, images=2, size=40, seed=0)
    first, second = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))
    (tmp_path / "secret.jpg").write_bytes((folder / first).read_bytes())
    extremes = Extremes(
        worst=[ImageLoss(first, 7, 99.5), ImageLoss("../secret.jpg", 1, 90.0)],
        best=[ImageLoss(second, 3, 11.25), ImageLoss("gone.jpg", 2, 12.0)],
    )
    estimate = dataclasses.replace(
        evaluation.estimate, provenance={**evaluation.estimate.provenance, "data": str(folder)}
    )
    page = report(dataclasses.replace(evaluation, estimate=estimate, extremes=extremes))
    assert page.count('<img src="data:image/jpeg;base64,') == 2
    text = text_of(page)
    assert "1. 99.5 nats, class 7" in text and "../secret.jpg could not be read" in text
    assert "largest loss 99.5" in text and "Smallest loss" in text


def test_models_on_the_same_images_are_compared_paired(report, estimated):
    one, other = (
        with_checks(evaluation_of(estimated, below=below, noise=0.02, seed=3)) for below in (0.4, 0.5)
    )
    noisy = dataclasses.replace(
        other,
        estimate=dataclasses.replace(
            other.estimate,
            replicates={
                **other.estimate.replicates,
                "cross_entropy": [
                    None if row is None else [None if v is None else v + 0.001 * g for v in row]
                    for g, row in enumerate(other.estimate.replicates["cross_entropy"])
                ],
            },
        ),
    )
    found = loss_difference(one, noisy)
    # By hand: Busing's delete-a-group jackknife of the difference of token-weighted means.
    images_G = np.array(estimated.replicates["images"], float)
    tokens_S = np.array([scale.tokens for scale in estimated.scales], float)
    deleted = [
        np.array(r.estimate.replicates["cross_entropy"], float) @ tokens_S / tokens_S.sum()
        for r in (one, noisy)
    ]
    change_G = (deleted[1] - deleted[0])[images_G > 0]
    h_G = images_G.sum() / images_G[images_G > 0]
    G = len(h_G)
    centre = G * found.value - ((1 - 1 / h_G) * change_G).sum()
    pseudo = h_G * found.value - (h_G - 1) * change_G
    se = math.sqrt(((pseudo - centre) ** 2 / (h_G - 1)).mean())
    assert found.paired and found.se == pytest.approx(se, rel=1e-9)
    half = t_quantile(G - 1) * se
    assert found.ci95 == pytest.approx((found.value - half, found.value + half))
    rows = rows_of(report(one, noisy, kind="csv"))
    (row,) = (row for row in rows if row["quantity"] == "cross_entropy minus that of result0")
    assert float(row["value"]) == found.value and row["estimator"] == "paired jackknife"
    assert "paired: the same images" in text_of(report(one, noisy))


def test_other_images_are_compared_unpaired_and_other_tokenizers_not_at_all(report, estimated):
    one, other = (with_checks(evaluation_of(estimated, below=below)) for below in (0.4, 0.5))
    data = dataclasses.replace(estimated.data, images_fingerprint="other")
    elsewhere = dataclasses.replace(other, estimate=dataclasses.replace(other.estimate, data=data))
    found = loss_difference(one, elsewhere)
    errors = [e.average.token_weighted.cross_entropy.se for e in (one, elsewhere)]
    assert not found.paired and found.se == pytest.approx(math.hypot(*errors))
    tokenizer = dataclasses.replace(estimated.tokenizer, checkpoint_sha256="f" * 64)
    stranger = dataclasses.replace(
        other, estimate=dataclasses.replace(other.estimate, tokenizer=tokenizer)
    )
    text = text_of(report(one, stranger))
    assert "result1 is NOT COMPARABLE with result0: another tokenizer." in text
    untold = dataclasses.replace(other, labels=dataclasses.replace(other.labels, source="none"))
    assert loss_difference(one, untold).not_comparable == "one is not told the class"


def test_models_are_drawn_against_their_size(report, estimated):
    big = dataclasses.replace(MODEL, parameters=310_283_520)
    models = [evaluation_of(estimated), evaluation_of(estimated, below=0.6, model=big)]
    page = report(*map(with_checks, models))
    assert page.count("<svg") == 2 and ">310<" in page
    unknown = evaluation_of(estimated, model=dataclasses.replace(MODEL, parameters=None))
    assert report(*map(with_checks, [models[0], unknown])).count("<svg") == 1


def test_an_estimate_beside_evaluations_compares_the_assignment_entropy(report, evaluation, estimated):
    text = text_of(report(estimated, evaluation))
    assert "Assignment entropies compared" in text and "+0.0000 ± 0.0000" in text
