"""`entropy-cli report` from the command line, and the reports that other commands end with."""

import copy
import csv
import html
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from entropy_cli.core.figures import PALETTE, RAMP, colour_ramp, new_figure, styled
from entropy_cli.entropy.jackknife import t_quantile
from entropy_cli.results.page.estimate_comparison import difference, estimate_comparison
from entropy_cli.results.page.figures import (
    convergence,
    plot_with_errors,
    scale_entropies,
    temperatures,
    usage_by_rank,
)
from entropy_cli.results.schema import from_dict
from entropy_cli.tokenizers.families.var import PATCH_NUMS

LineCollection = pytest.importorskip("matplotlib.collections").LineCollection


@pytest.fixture
def content(estimate, images, checkpoint):
    """A result with several temperatures."""
    return estimate("--data", images, "--ckpt", checkpoint, "--temperature", "1,0.5,2")


@pytest.fixture
def report(cli, tmp_path):
    """Run `report` on contents; gives the text of what it wrote."""

    def run(*contents, kind="html"):
        paths = []
        for i, one in enumerate(contents):
            paths.append(tmp_path / f"result{i}.json")
            paths[-1].write_text(json.dumps(one))
        output = tmp_path / f"report.{kind}"
        code, out, err = cli("report", *paths, "-o", output)
        assert code == 0 and all(line.startswith("wrote ") for line in err.splitlines())
        assert out == f"{output}\n"
        return output.read_text() if kind in ("html", "md", "csv") else output.read_bytes()

    return run


def text_of(page):
    return " ".join(html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S)).split())


def drawn(draw, content):
    """Everything that lies on the axes: heights of lines, markers and areas, and the names."""
    with styled():
        axes = new_figure(5, 4).add_subplot()
        draw(axes, from_dict(content))
    lines = [np.asarray(line.get_ydata(), float) for line in axes.get_lines()]
    areas = [path.vertices[:, 1] for area in axes.collections for path in area.get_paths()]
    names = axes.get_legend_handles_labels()[1]
    return np.concatenate([*lines, *areas]), names


class TestPage:
    def test_it_holds_headline_tables_figures_notes_and_provenance(self, report, content):
        page = report(content)
        words = text_of(page)
        average = content["average"]["token_weighted"]["assignment_entropy"]
        low, high = average["ci95"]
        headline = f"{average['value']:.4f} nats per token, 95 % interval {low:.4f} to {high:.4f}"
        assert headline in words
        assert f"95 % interval {average['ci95'][0]:.4f} to {average['ci95'][1]:.4f}" in words
        for title in (
            "Soft assignment",
            "Hard tokens: the nearest codes",
            "Assignment entropy at each temperature",
            "Codes by usage",
            "Notes",
            "Provenance",
        ):
            assert title in words
        assert page.count("<svg") == 4
        assert page.count("<table") == 6
        assert "neither floor nor ceiling" in words
        assert content["provenance"]["command"] in html.unescape(page)
        assert content["data"]["images_used"] == 70

    def test_its_title_tells_what_it_is_of(self, report, content):
        title = re.search("<title>(.*)</title>", report(content))[1]
        checkpoint, data = (
            "/".join(content["provenance"][key].split("/")[-2:]) for key in ("checkpoint", "data")
        )
        value = content["average"]["token_weighted"]["assignment_entropy"]["value"]
        assert title.startswith(f"{checkpoint} (var) on {data}: {value:.4f} nats per token, ")

    def test_figures_say_their_findings_and_have_the_colours_of_the_page(self, report, content):
        page = report(content)
        lowest = min(scale["assignment_entropy"]["value"] for scale in content["scales"])
        (label,) = re.findall('aria-label="([^"]*Entropies of each scale[^"]*)"', page)
        assert label.startswith(f"Assignment entropy: {lowest:.2f} (")
        drawn = set(re.findall("#[0-9a-f]{6}", "".join(re.findall("<svg.*?</svg>", page, re.S))))
        assert drawn == set(colour_ramp(len(content["scales"])))

    def test_averages_come_before_what_they_lack(self, report, content):
        table = report(content).partition('id="soft"')[2].partition("</table>")[0]
        assert re.findall(r"<td>(.*?)</td>", table.rpartition("<tr>")[2])[-3:] == ["", "", ""]

    def test_it_loads_nothing(self, report, content):
        page = report(content)
        assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!data:|#)", page)
        assert "@import" not in page
        assert "url(http" not in page

    def test_the_codes_that_are_used_most_and_least(self, report, content):
        page = report(content, kind="md")
        total = np.sum([scale["code_counts"] for scale in content["scales"]], axis=0)
        order = sorted(range(48), key=lambda code: (-total[code], code))
        table = page[page.index("## Codes by usage") :].split("\n\n")[2].splitlines()[2:]
        shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
        assert [int(row[0]) for row in shown] == [*order[:10], *order[-10:]]
        assert [int(row[2]) for row in shown] == [total[int(row[0])] for row in shown]
        assert f"{(total == 0).sum()} were never nearest" in page

    @pytest.mark.parametrize(
        ("kind", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
    )
    def test_figures_of_one_result_are_the_same_bytes(self, report, content, kind, head):
        first = report(content, kind=kind)
        assert first.startswith(head)
        assert report(content, kind=kind) == first

    def test_every_number_as_csv(self, report, content):
        rows = list(csv.DictReader(io.StringIO(report(content, kind="csv"))))
        found = {(row["temperature"], row["scale"], row["quantity"]): row for row in rows}
        assert len(found) == len(rows)
        for scale in content["scales"]:
            row = found["1.0", scale["name"], "unigram_entropy"]
            assert float(row["value"]) == scale["unigram_entropy"]["value"]
        for at in content["temperatures"][1:]:
            row = found[str(at["temperature"]), "token_weighted", "assignment_entropy"]
            assert float(row["se"]) == at["average"]["token_weighted"]["assignment_entropy"]["se"]


def contrast(*colours):
    """The ratio of the relative luminances of two colours, by WCAG 2.2."""
    light = []
    for colour in colours:
        channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        light.append(0.05 + np.dot(linear, [0.2126, 0.7152, 0.0722]))
    return max(light) / min(light)


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_contrast_with_the_paper(theme):
    paper = PALETTE["paper"][theme]
    for name, pair in PALETTE.items():
        least = {"paper": 1, "ink": 4.5, "faint": 4.5}.get(name, 3)
        assert contrast(pair[theme], paper) >= least, name
    assert all(contrast(colour, paper) >= 3 for colour in (*RAMP, *colour_ramp(10)))


class TestNumbers:
    """Those of pages and figures are those of the result: change one, and it changes everywhere."""

    @pytest.fixture
    def changed(self, content):
        other = copy.deepcopy(content)
        estimate = other["average"]["token_weighted"]["assignment_entropy"]
        estimate["value"] = estimate["plug_in"] = 1.23456
        other["scales"][2]["assignment_entropy"]["value"] = 2.34567
        other["temperatures"][1]["average"]["last_scale"]["assignment_entropy"]["value"] = 3.45678
        other["history"][-1]["value"] = 1.56789
        other["scales"][0]["code_counts"][7] = 54321
        return other

    @pytest.mark.parametrize("kind", ["html", "md", "csv"])
    def test_pages_and_tables_show_the_changed_number(self, report, content, changed, kind):
        before, after = (text_of(report(one, kind=kind)) for one in (content, changed))
        for number in (1.23456, 2.34567, 3.45678):
            words = str(number) if kind == "csv" else f"{number:.4f}"
            assert words not in before
            assert words in after
        if kind != "csv":
            used = sum(scale["code_counts"][7] for scale in changed["scales"])
            assert f" {used} " in after

    @pytest.mark.parametrize(
        ("draw", "value"),
        [(scale_entropies, 2.34567), (temperatures, 3.45678), (convergence, 1.56789)],
    )
    def test_figures_show_the_changed_number(self, content, changed, draw, value):
        assert not np.isclose(drawn(draw, content)[0], value, atol=1e-9).any()
        assert np.isclose(drawn(draw, changed)[0], value, atol=1e-9).any()

    def test_error_bars_end_at_the_ends_of_the_intervals(self, content):
        estimates = [scale.assignment_entropy for scale in from_dict(content).scales]
        at, style = np.arange(4.0), {"label": "", "color": "red", "marker": "o"}
        for sideways in (False, True):
            axes = new_figure(5, 4).add_subplot()
            plot_with_errors(axes, at, estimates, sideways=sideways, **style)
            (bars,) = (bars for bars in axes.collections if isinstance(bars, LineCollection))
            ends = [segment[:, int(not sideways)] for segment in bars.get_segments()]
            np.testing.assert_allclose(ends, [estimate.ci95 for estimate in estimates], rtol=1e-12)

    def test_the_curve_of_temperatures_has_the_slopes_of_the_points(self, content):
        """The spline of a cubic in ln T is the cubic, and the dashes are its tangents."""
        cubic = np.polynomial.Polynomial([2, 1, 0.3, 0.1])
        content = copy.deepcopy(content)
        for at in content["temperatures"]:
            of, x = at["average"]["token_weighted"], np.log(at["temperature"])
            of["assignment_entropy"]["value"] = float(cubic(x))
            of["varentropy"]["value"] = float(cubic.deriv()(x))
        axes = new_figure(5, 4).add_subplot()
        temperatures(axes, from_dict(content))
        curve, *others = axes.get_lines()
        np.testing.assert_allclose(curve.get_ydata(), cubic(np.log(curve.get_xdata())), rtol=1e-12)
        assert len(curve.get_xdata()) > 40
        tangents = [line.get_xydata() for line in others if len(line.get_xdata()) == 2][:3]
        for (x, y), (x1, y1) in tangents:
            middle = np.log(x * x1) / 2
            assert (y + y1) / 2 == pytest.approx(cubic(middle))
            assert (y1 - y) / np.log(x1 / x) == pytest.approx(cubic.deriv()(middle))

    def test_the_figure_of_codes_shows_the_changed_count(self, content, changed):
        counts = np.array(changed["scales"][0]["code_counts"])
        assert np.isclose(drawn(usage_by_rank, changed)[0], 100 * counts.max() / counts.sum()).any()
        names = drawn(usage_by_rank, content)[1]
        dead = content["scales"][0]["code_counts"].count(0)
        coverage = content["scales"][0]["coverage"]
        assert f"1x1: {dead} dead, {coverage:.3f}" in names

    def test_published_values_are_drawn_for_what_they_are_of(self, content):
        content = copy.deepcopy(content)
        vars_own = {"family": "var", "vocab_size": 4096, "patch_nums": list(PATCH_NUMS[256])}
        content["tokenizer"] |= vars_own
        names = drawn(temperatures, content)[1]
        assert "5.0 to 5.1: token-weighted, VAR issue 23" in names
        assert "4.5: final scale, VAR issue 23" in names
        for other in ({"family": "vqgan"}, {"vocab_size": 16384}, {"patch_nums": list(PATCH_NUMS[512])}):
            content["tokenizer"] |= vars_own | other
            assert not any("VAR issue" in name for name in drawn(temperatures, content)[1])


class TestComparison:
    def test_paired_through_the_replicates(self, estimate, images, checkpoint):
        a, b = (
            estimate("--data", images, "--ckpt", checkpoint, "--temperature", t) for t in ("1", "0.98")
        )
        found = difference(from_dict(a), from_dict(b))
        average = [one["average"]["token_weighted"]["assignment_entropy"] for one in (a, b)]
        assert found.paired
        assert found.value == pytest.approx(average[1]["value"] - average[0]["value"], abs=1e-12)
        assert found.se < average[0]["se"] / 5
        assert found.not_comparable == "different temperatures"
        # the same by hand: Busing's jackknife of the difference, in plain Python
        images_G = a["replicates"]["images"]
        tokens = [scale["tokens"] for scale in a["scales"]]
        total, used = sum(images_G), [g for g, n in enumerate(images_G) if n]

        def without(one, g):
            row = one["replicates"]["assignment_entropy"][g]
            return sum(t * x for t, x in zip(tokens, row, strict=True)) / sum(tokens)

        deleted = {g: without(b, g) - without(a, g) for g in used}
        jackknifed = len(used) * found.value - sum((1 - images_G[g] / total) * deleted[g] for g in used)
        variance = 0.0
        for g in used:
            h = total / images_G[g]
            variance += (h * found.value - (h - 1) * deleted[g] - jackknifed) ** 2 / (h - 1)
        assert found.se == pytest.approx((variance / len(used)) ** 0.5, rel=1e-9)
        half_width = t_quantile(len(used) - 1) * found.se
        ends = (found.value - half_width, found.value + half_width)
        assert found.ci95 == pytest.approx(ends, rel=1e-9)

    def test_unpaired_for_other_images(self, estimate, images, checkpoint, baseline):
        part = estimate("--data", images, "--ckpt", checkpoint, "--limit", 50)
        found = difference(from_dict(baseline), from_dict(part))
        average = [one["average"]["token_weighted"]["assignment_entropy"] for one in (baseline, part)]
        assert not found.paired
        assert found.se == pytest.approx(np.hypot(average[0]["se"], average[1]["se"]), rel=1e-12)
        assert found.not_comparable == ""

    @pytest.mark.parametrize("kind", ["html", "md", "csv", "png"])
    def test_results_stand_side_by_side(self, report, content, baseline, kind):
        text = report(content, baseline, kind=kind)
        if kind == "png":
            return
        words = text_of(text) if kind == "html" else text
        value = baseline["average"]["token_weighted"]["assignment_entropy"]["value"]
        assert f"{value:.4f}" in words or str(value) in words
        assert "paired" in words
        if kind == "md":
            tokens = sum(scale["tokens"] for scale in baseline["scales"])
            assert f"{value * tokens:.2f}" in words  # nats per image
            assert f"{value * tokens / np.log(2) / 32**2:.4f}" in words  # bits per pixel

    @pytest.fixture
    def other(self, estimate, images, checkpoint):
        """A result at another temperature."""
        return estimate("--data", images, "--ckpt", checkpoint, "--temperature", "0.5")

    def test_a_caveat_stands_with_every_number(self, report, content, other):
        caveat = "NOT COMPARABLE: different temperatures"
        rows = [line for line in report(content, other, kind="md").splitlines() if "| result1" in line]
        assert len(rows) == 3 and all(f"result1<br>{caveat}" in row for row in rows)
        page = report(content, other)
        assert "result1 is NOT COMPARABLE with result0: different temperatures." in page
        assert len(re.findall(rf'aria-label="[^"]*result1 {caveat}', page)) == 2

    def test_figures_carry_the_caveat(self, content, other):
        shown = estimate_comparison([from_dict(content), from_dict(other)], ["a.json", "b.json"])
        with styled():
            averages, scales = (new_figure(5, 4).add_subplot() for _ in shown.panels)
            for axes, draw in zip((averages, scales), shown.panels.values(), strict=True):
                draw(axes)
                assert "(b)" not in axes.get_title(loc="left")
        value = content["average"]["token_weighted"]["assignment_entropy"]["value"]
        assert f"{value:.3f} (a)" in averages.get_title(loc="left")
        assert [text.get_text() for text in averages.get_yticklabels()] == ["a", "b\nNOT COMPARABLE"]
        names = scales.get_legend_handles_labels()[1]
        assert names == ["a", "b, NOT COMPARABLE: different temperatures"]

    @pytest.mark.parametrize("kind", ["html", "md"])
    def test_it_tells_how_each_result_was_made(self, report, content, other, kind):
        text = html.unescape(report(content, other, kind=kind))
        for one in (content, other):
            assert one["provenance"]["command"] in text
            assert text.count(one["tokenizer"]["checkpoint_sha256"]) == 2  # the same for both
        assert "1, 0.5, 2" in text


class TestErrors:
    def test_what_is_no_result(self, cli, tmp_path):
        path = tmp_path / "result.json"
        for text, words in (("{}", "not a result"), ("[", "not JSON")):
            path.write_text(text)
            code, out, err = cli("report", path, "-o", tmp_path / "r.html")
            assert (code, out) == (3, "")
            assert words in err
        code, _, err = cli("report", tmp_path / "nothing.json", "-o", tmp_path / "r.html")
        assert (code, "can't be read" in err) == (3, True)

    def test_other_schema_versions_are_refused(self, cli, tmp_path, content):
        path = tmp_path / "result.json"
        for version, advice in ((0, "Estimate again"), (3, "Upgrade entropy-cli")):
            path.write_text(json.dumps({**content, "schema_version": version}))
            code, _, err = cli("report", path, "-o", tmp_path / "r.html")
            assert (code, advice in err) == (3, True)

    def test_where_it_can_not_go(self, cli, tmp_path, content):
        path = tmp_path / "result.json"
        path.write_text(json.dumps(content))
        for output, words in (
            (tmp_path / "r.txt", "ends in .html"),
            (tmp_path / "nowhere" / "r.html", "there is no folder"),
        ):
            code, _, err = cli("report", path, "-o", output)
            assert (code, words in err) == (3, True), err
        renamed = tmp_path / "result.html"
        renamed.write_text(path.read_text())
        code, _, err = cli("report", renamed, "-o", renamed)
        assert (code, "same file" in err) == (3, True)
        assert json.loads(renamed.read_text())

    def test_without_a_name_it_is_called_like_the_result(self, cli, tmp_path, content, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "run7.json").write_text(json.dumps(content))
        code, out, _ = cli("report", "run7.json")
        assert (code, out) == (0, "run7.html\n")
        assert (tmp_path / "run7.html").exists()


def test_estimate_ends_with_a_report(cli, tmp_path, images, checkpoint):
    argv = ["--data", images, "--ckpt", checkpoint, "--workers", 0, "--limit", 20]
    code, out, _ = cli("estimate", *argv, "--report", tmp_path / "r.md", "--json")
    assert code == 0
    value = json.loads(out)["average"]["token_weighted"]["assignment_entropy"]["value"]
    assert f"**{value:.4f}" in (tmp_path / "r.md").read_text()
    code, _, err = cli("estimate", *argv, "--report", tmp_path / "r.txt")
    assert (code, "ends in .html" in err) == (3, True)


def test_report_imports_no_torch(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    code = (
        "import sys; from entropy_cli.cli import main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    argv = [sys.executable, "-c", code, "report", path, "-o", tmp_path / "r.html"]
    done = subprocess.run(argv, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
