"""A bound is shown, drawn and compared as a bound: in tables, files and figures, and as a ceiling."""

import copy
import csv
import io
import json
import math
import re

import numpy as np
import pytest

from entropy_cli.cli import main
from entropy_cli.core.figures import ORANGE, new_figure, styled
from entropy_cli.entropy.quantity import AT_MOST, UNDERSAMPLED, Estimate, perplexity
from entropy_cli.results.floors import read_floor
from entropy_cli.results.notes import notes
from entropy_cli.results.page.figures import scale_entropies, usage_by_rank
from entropy_cli.results.schema import from_dict
from entropy_cli.results.tables import dead_codes
from entropy_cli.results.text import render
from tests.e2e.test_monitor import noisy, table

pytest.importorskip("matplotlib")

BOUNDED = ("marginal_entropy", "mutual_information", "unigram_entropy", "perplexity", "usage_estimate")


def known(of):
    """The same with an interval for everything that could be a bound."""
    for name in BOUNDED:
        estimate = of[name]
        estimate |= {"note": None, "ci95": [estimate["value"] - 0.01, estimate["value"] + 0.01]}


def bound(of, names=BOUNDED):
    """The same with lower bounds."""
    for name in names:
        of[name] |= {"note": UNDERSAMPLED, "ci95": None}


def without_brackets(content):
    """The same as an earlier version wrote it."""
    content = copy.deepcopy(content)
    for of in (*content["scales"], *content["average"].values()):
        del of["unigram_bracket"]
    return content


@pytest.fixture(scope="module")
def made(tmp_path_factory, images, checkpoint):
    """A result of `estimate`."""
    path = tmp_path_factory.mktemp("result") / "result.json"
    argv = ["estimate", "--data", images, "--ckpt", checkpoint, "-o", path, "--workers", 0]
    argv += ["--temperature", 1]
    assert main([str(part) for part in argv]) == 0
    return json.loads(path.read_text())


@pytest.fixture
def content(made):
    """The same with everything known."""
    content = copy.deepcopy(made)
    for of in (*content["scales"], *content["average"].values()):
        known(of)
    return content


@pytest.fixture
def bounds(content):
    """The same with lower bounds alone."""
    content = copy.deepcopy(content)
    for of in (*content["scales"], *content["average"].values()):
        bound(of)
    return content


@pytest.fixture
def uncounted(content):
    """The same with codes too many to be counted."""
    content = copy.deepcopy(content)
    nothing = {"value": None, "plug_in": None, "se": None, "ci95": None, "estimator": "", "note": "many"}
    for of in (*content["scales"], *content["average"].values()):
        at_most = {**of["marginal_entropy"], "value": of["marginal_entropy"]["value"] + 0.1}
        of["marginal_entropy_bound"] = at_most
        for name in BOUNDED:
            of[name] = dict(nothing)
    return content


@pytest.fixture
def report(cli, tmp_path):
    def run(kind, *contents):
        paths = []
        for i, one in enumerate(contents):
            paths.append(tmp_path / f"{i}.json")
            paths[-1].write_text(json.dumps(one))
        code, _, err = cli("report", *paths, "-o", tmp_path / f"report.{kind}")
        assert code == 0 and all(line.startswith("wrote ") for line in err.splitlines())
        return (tmp_path / f"report.{kind}").read_text()

    return run


class TestText:
    def test_every_number_has_its_sign(self, content, bounds):
        scale = from_dict(bounds).scales[1]
        assert "≥ " not in render(from_dict(content), table=True)
        for units, factor in (("nats", 1), ("bits", 1 / math.log(2))):
            text = render(from_dict(bounds), units, table=True)
            for name in ("marginal_entropy", "mutual_information", "unigram_entropy"):
                assert f"≥ {factor * getattr(scale, name).value:.4f}" in text
            assert f"≥ {scale.perplexity.value:.1f}" in text
            assert f"≥ {100 * scale.usage:.1f}" in text

    @pytest.mark.parametrize("kind", ["md", "html"])
    def test_reports_say_what_the_signs_mean(self, report, content, bounds, uncounted, kind):
        assert "≥ " not in report(kind, content) and "≥ marks" not in report(kind, content)
        text = report(kind, bounds)
        average = bounds["average"]["token_weighted"]
        assert text.count(f"≥ {average['unigram_entropy']['value']:.4f}") == 1
        assert text.count("≥ marks a lower bound") == 2  # of both tables
        scale = bounds["scales"][1]
        dead = 48 - scale["codes_used"]
        assert f"≤ {dead}" in text and "≤ marks an upper bound" in text
        text = report(kind, uncounted)
        at_most = uncounted["average"]["token_weighted"]["marginal_entropy_bound"]["value"]
        assert f"≤ {at_most:.4f} ±" in text and "≤ marks an upper bound" in text
        both = report(kind, content, bounds)
        assert f"≥ {average['unigram_entropy']['value']:.4f}" in both and "≥ marks" in both

    def test_csv_has_a_column(self, report, content, bounds, uncounted):
        def column(*contents):
            rows = list(csv.DictReader(io.StringIO(report("csv", *contents))))
            return [(row["quantity"], row["bound"]) for row in rows]

        assert {kind for _, kind in column(content)} == {""}
        assert set(column(bounds)) == {
            *((name, "lower") for name in BOUNDED),
            ("assignment_entropy", ""),
            ("varentropy", ""),
        }
        assert ("marginal_entropy_bound", "upper") in column(uncounted)
        assert ("unigram_entropy", "lower") in column(content, bounds)
        assert ("assignment_entropy minus that of 0", "") in column(content, bounds)

    def test_dead_codes_of_a_codebook_of_its_own(self, content):
        scale = content["scales"][0]
        scale |= {"codes_used": 3, "usage": 0.25, "code_counts": [1] * 3 + [0] * 9}
        content["pooled"] = None
        assert dead_codes(from_dict(content).scales[0]) == "9"

    def test_what_is_made_of_a_bound_is_one(self):
        entropy = Estimate(2.0, 2.0, 0.1, None, "plug-in", UNDERSAMPLED)
        assert (entropy.bound, entropy.sign, perplexity(entropy).bound) == ("lower", "≥ ", "lower")
        assert Estimate(2.0, 2.0, 0.1, None, "", AT_MOST).sign == "≤ "
        assert Estimate(2.0, 2.0, None, None, "", "no error: few").bound == ""


def drawn(draw, content):
    """The lines on the axes, and the legend's names."""
    with styled():
        axes = new_figure(5, 4).add_subplot()
        draw(axes, from_dict(content))
    return axes.get_lines(), axes.get_legend_handles_labels()


def filled_at(lines, colour):
    """Heights of the filled markers of a colour."""
    found = []
    for line in lines:
        is_filled = line.get_marker() in ("o", "s", "D") and line.get_markerfacecolor() == colour
        if is_filled and line.get_color() == colour:
            shown = line.get_markevery()
            y = np.asarray(line.get_ydata(), float)
            found += (y if shown is None else y[shown]).tolist()
    return found


class TestFigures:
    def test_a_hollow_marker_is_the_only_one_at_its_place(self, content):
        value = content["scales"][1]["unigram_entropy"]["value"]
        lines, (_, names) = drawn(scale_entropies, content)
        assert value in filled_at(lines, ORANGE) and "≥ unigram entropy" not in names
        bound(content["scales"][1], ["unigram_entropy"])
        lines, (_, names) = drawn(scale_entropies, content)
        assert value not in filled_at(lines, ORANGE) and len(filled_at(lines, ORANGE)) == 3
        to_meta = [line for line in lines if line.get_label() == "≥ unigram entropy"]
        assert [line.get_ydata().tolist() for line in to_meta] == [[value]]
        assert "unigram entropy" in names and "mutual information" in names

    def test_no_marker_covers_another(self, bounds):
        for scale in bounds["scales"]:
            for name in ("marginal_entropy", "unigram_entropy"):
                scale[name]["value"] = scale["assignment_entropy"]["value"]
        lines, _ = drawn(scale_entropies, bounds)
        marked = [line for line in lines if line.get_marker() not in ("None", "_")]
        x = [round(x, 6) for line in marked for x in line.get_xdata()]
        assert len(x) == len(set(x)) == 3 * len(bounds["scales"])

    def test_the_legend_names_what_is_there(self, bounds, uncounted):
        _, (_, names) = drawn(scale_entropies, bounds)
        assert {"≥ marginal entropy", "≥ unigram entropy"} < set(names)
        assert {"marginal entropy", "unigram entropy", "mutual information"}.isdisjoint(names)
        assert "≥ mutual information" in names
        _, (_, names) = drawn(scale_entropies, uncounted)
        assert "≤ marginal entropy" in names and "marginal entropy" not in names

    def test_the_page_keeps_it_hollow(self, report, bounds):
        page = report("html", bounds)
        assert re.search(r"<use [^>]*fill: var\(--paper\); stroke: var\(--orange\)", page)

    def test_dead_codes(self, content, bounds):
        dead = 48 - content["scales"][0]["codes_used"]
        assert any(f"1x1: {dead} dead" in name for name in drawn(usage_by_rank, content)[1][1])
        assert any(f"1x1: ≤ {dead} dead" in name for name in drawn(usage_by_rank, bounds)[1][1])


class TestCeilings:
    @pytest.fixture
    def found(self, cli, tmp_path):
        """Findings of `monitor` about a loss of this height, against a result."""

        def run(content, loss):
            (tmp_path / "result.json").write_text(json.dumps(content))
            (tmp_path / "log").write_text(table(nll=noisy(np.full(100, loss), 0.003)))
            floor = ("--floor", tmp_path / "result.json")
            code, out, err = cli("monitor", tmp_path / "log", *floor, "--json")
            assert code == 0, err
            one = json.loads(out)
            return [f for f in one["findings"] if f["id"] == "above_unigram"], one["series"][0][
                "unigram"
            ]

        return run

    def test_monitor_goes_by_the_held_out_limit(self, found, content, bounds):
        average = content["average"]["token_weighted"]
        value, most = average["unigram_entropy"]["value"], average["unigram_bracket"]["upper95"]
        assert value < most
        for one, expected in ((content, value), (bounds, None)):
            (finding,), shown = found(one, most + 0.1)
            assert f"unigram entropy, at most {most:.4f}," in finding["message"] and shown == expected
            assert found(one, most - 0.01)[0] == []
            said = [note for note in notes(from_dict(one)) if "above the unigram entropy (" in note]
            assert len(said) == 1 and f"(at most {most:.3f} nats" in said[0]

    def test_results_of_earlier_versions_have_an_interval_or_no_ceiling(self, found, content, bounds):
        value = content["average"]["token_weighted"]["unigram_entropy"]["value"]
        for one, findings in ((content, 1), (bounds, 0)):
            older = without_brackets(one)
            assert len(found(older, value + 0.1)[0]) == findings
            assert sum("loss is above the unigram" in n for n in notes(from_dict(older))) == findings

    def test_loss(self, cli, tmp_path, content, bounds):
        generator = np.random.default_rng(0)
        labels = generator.integers(48, size=(40, 85))
        average = content["average"]["token_weighted"]
        value, most = average["unigram_entropy"]["value"], average["unigram_bracket"]["upper95"]
        # logits that give every label the probability exp(-loss)
        probability = math.exp(-most - 0.1)
        logits = np.full((40, 85, 48), math.log((1 - probability) / 47))
        np.put_along_axis(logits, labels[..., None], math.log(probability), 2)
        np.save(tmp_path / "x.npy", logits.astype(np.float32))
        np.save(tmp_path / "y.npy", labels)
        argv = ["loss", "--logits", tmp_path / "x.npy", "--labels", tmp_path / "y.npy", "--json"]
        ids = {}
        older = without_brackets(bounds)
        for name, one in (("known", content), ("bounds", bounds), ("older", older)):
            (tmp_path / "r.json").write_text(json.dumps(one))
            _, out, _ = cli(*argv, "--floor", tmp_path / "r.json")
            found = json.loads(out)
            ids[name] = [finding["id"] for finding in found["findings"]]
            assert found["unigram_entropy"] == (value if name == "known" else None)
        for name in ("known", "bounds"):
            assert "above_unigram" in ids[name] and "unigram_bound" not in ids[name]
        assert "above_unigram" not in ids["older"] and "unigram_bound" in ids["older"]

    def test_the_picture_of_a_run_draws_a_bound_as_one(self, cli, tmp_path, content, bounds):
        (tmp_path / "log").write_text(table(nll=noisy(np.full(100, 3.0), 0.003)))
        value = content["average"]["token_weighted"]["unigram_entropy"]["value"]
        result, picture = tmp_path / "r.json", tmp_path / "run.svg"
        for one, sign in ((content, ", "), (bounds, " ≥ ")):
            result.write_text(json.dumps(one))
            assert cli("monitor", tmp_path / "log", "--floor", result, "-o", picture)[0] == 0
            names = re.findall("<!-- (unigram entropy.*) -->", picture.read_text())
            assert names == [f"unigram entropy{sign}{value:.3f}"]
        level = read_floor(result).mean
        assert level.unigram.bound == "lower" and level.unigram_value is None
