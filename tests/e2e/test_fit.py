"""`entropy-cli fit` from the command line: results, verdicts, pictures, floors, and wrong input."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from entropy_cli.cli import main
from entropy_cli.commands.fit.points import read_points
from entropy_cli.results.schema import read_result

ACCEPTED = {"schema", "schema_version", "form", "points", "parameters", "ci95", "objective"}
TWELVE = np.geomspace(18e6, 2e9, 12)


def write(path, sizes, losses, head="params,val_loss"):
    rows = [
        f"{size!r},{loss!r}" for size, loss in zip(map(float, sizes), map(float, losses), strict=True)
    ]
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


@pytest.fixture
def models(tmp_path):
    """Twelve models of L = 5 + (4e8/N)^0.2 with a noise of 0.003 nats."""
    noise = 0.003 * np.random.default_rng(0).standard_normal(12)
    return write(tmp_path / "models.csv", TWELVE, 5 + (4e8 / TWELVE) ** 0.2 + noise)


@pytest.fixture
def fit(cli):
    """Run `fit --json`; gives the result."""

    def run(*argv):
        code, out, err = cli("fit", "--json", *argv)
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.fixture(scope="module")
def floor(tmp_path_factory, images, checkpoint):
    """A result of `estimate` and its two levels."""
    path = tmp_path_factory.mktemp("floor") / "estimate.json"
    argv = ["estimate", "--data", images, "--ckpt", checkpoint, "--limit", 32, "--workers", 0]
    assert main([str(part) for part in (*argv, "-o", path)]) == 0
    average = read_result(path).average
    return path, *(of.assignment_entropy.value for of in (average.token_weighted, average.last_scale))


def test_a_power_laws_parameters_are_within_their_intervals(fit, models):
    found = fit(models, "--bootstrap", 50)
    assert set(found) >= ACCEPTED
    assert (found["schema"], found["schema_version"], found["form"]) == ("entropy-cli/fit", 1, "power")
    assert (found["points"], found["verdict"]) == (12, "ok")
    assert list(found["parameters"]) == ["E", "N0", "alpha"]
    for name, truth in (("E", 5), ("N0", 4e8), ("alpha", 0.2)):
        low, high = found["ci95"][name]
        assert low < truth < high
        assert low <= found["parameters"][name] <= high
    assert found["interval_kind"] == "profile"
    assert found["intervals"]["bootstrap"]["resamples"] == 50
    assert found["optima"]["starts"] == 72


def test_chinchillas_points_give_the_replications_parameters_and_intervals(fit, shared):
    table = shared / "scaling" / "chinchilla_svg_extracted_data.csv"
    named = ["--size", "Model Size", "--flop", "Training FLOP", "--loss", "loss"]
    found = fit(table, "--form", "chinchilla", *named, "--drop-largest", 5, "--bootstrap", 100)
    assert found["points"] == 240
    assert found["parameters"]["E"] == pytest.approx(1.8172, abs=5e-4)
    assert found["parameters"]["alpha"] == pytest.approx(0.3473, abs=1e-3)
    assert found["parameters"]["beta"] == pytest.approx(0.3672, abs=2e-3)
    assert found["objective"] <= 1.0184e-3
    assert (found["verdict"], found["interval_kind"]) == ("ok", "bootstrap")
    assert found["ci95"]["E"] == pytest.approx([1.775, 1.877], abs=0.015)
    assert found["intervals"]["bootstrap"]["se"]["E"] == pytest.approx(0.026, abs=0.005)
    by_name = read_points(table, {"FLOP": "training flop"}, with_data_size=True)
    assert by_name.columns == {"size": "Model Size", "FLOP": "Training FLOP", "loss": "loss"}
    assert by_name.size_TP.shape == (2, 245)


@pytest.mark.parametrize(
    ("points", "resamples", "kind"), [(30, 20, "profile"), (31, 20, "bootstrap"), (31, 0, "profile")]
)
def test_intervals_of_over_30_points_are_the_bootstraps_unless_there_is_none(
    fit, tmp_path, points, resamples, kind
):
    sizes = np.geomspace(18e6, 2e9, points)
    noise = 0.003 * np.random.default_rng(1).standard_normal(points)
    table = write(tmp_path / "many.csv", sizes, 5 + (4e8 / sizes) ** 0.2 + noise)
    found = fit(table, "--bootstrap", resamples)
    assert found["interval_kind"] == kind
    assert found["ci95"] == found["intervals"][kind]["ci95"]
    assert found["E_range95"] == found["ci95"]["E"]
    assert ("bootstrap" in found["intervals"]) == (resamples > 0)


def test_few_points_are_a_refusal_and_no_error(cli, fit, tmp_path):
    var = np.array([310e6, 600e6, 1e9, 2e9])
    noise = np.array([-0.004, 0.006, 0.002, -0.005])
    table = write(tmp_path / "var.csv", var, 5 + (4e8 / var) ** 0.2 + noise)
    found = fit(table)
    assert (found["verdict"], found["parameters"], found["ci95"]) == ("refused", None, None)
    assert "0.81 decades" in found["reason"]
    assert found["optima"] is None
    assert found["E_range95"][1] - found["E_range95"][0] > 1
    code, out, _ = cli("fit", table)
    assert code == 0
    assert "the fit is refused" in out
    given = fit(table, "--floor", 5)
    assert (given["verdict"], given["fixed_E"], given["parameters"]["E"]) == ("ok", 5.0, 5.0)
    assert given["parameters"]["alpha"] == pytest.approx(0.2, abs=0.02)
    assert "E" not in given["ci95"]


def test_wide_intervals_are_refused_too(fit, tmp_path):
    sizes = np.geomspace(1e8, 1.2e9, 5)
    losses = 5 + (4e8 / sizes) ** 0.2 + 0.03 * np.array([1, -1, 0.5, -0.5, 1])
    found = fit(write(tmp_path / "wide.csv", sizes, losses))
    assert (found["verdict"], found["parameters"]) == ("refused", None)
    assert "too wide" in found["reason"]


@pytest.mark.parametrize(
    ("sizes", "losses", "verdict", "words"),
    [
        ([1e6, 1e7, 1e8, 1e9], [5, 5, 5, 5], "refused", "does not fall"),
        ([1e6], [5], "refused", "distinct sizes: 1"),
        ([1e6, 1e7, 1e8, 1e9, 1e10], [8, 5, 1, 1, 1], "refused", "half of the smallest loss"),
        ([1e6, 1e7, 1e8, 1e9, 1e10], [5, 4, 3.2, 2.56, 2.048], "weak", "less than half"),
        ([1e-12, 1, 1e12, 1e24, 1e36], [8, 5, 4, 3.9, 4.5], "refused", "interval of E"),
    ],
)
def test_odd_points_get_a_verdict_and_a_picture(fit, tmp_path, sizes, losses, verdict, words):
    table = write(tmp_path / "odd.csv", sizes, losses)
    found = fit(table, "-o", tmp_path / "odd.png")
    assert found["verdict"] == verdict
    assert words in found["reason"]
    assert (tmp_path / "odd.png").is_file()


@pytest.mark.parametrize("given", [[], ["--size", "step"]])
def test_one_training_curve_is_no_irreducible_loss(fit, tmp_path, given):
    steps = np.arange(1, 50) * 1000
    table = write(tmp_path / "curve.csv", steps, 3 + steps**-0.3 * 10, "step,loss")
    found = fit(table, *given)
    assert (found["verdict"], found["parameters"]) == ("refused", None)
    assert "one training curve" in found["reason"]
    assert found["E_range95"] is None
    assert "Beware" in " ".join(fit(table, "--floor", 1)["notes"])


def test_the_largest_losses_are_dropped_exactly(fit, models):
    rows = models.read_text().splitlines()
    models.write_text("\n".join([rows[0], "20M,9.9", "25M,9.9", "30M,9.9", *rows[1:]]))
    found = fit(models, "--drop-largest", 3, "--bootstrap", 0)
    assert (found["points"], found["dropped"]) == (12, 3)
    assert found["parameters"]["E"] == pytest.approx(5, abs=0.06)
    assert not found["notes"]
    split = fit(models, "--drop-largest", 2, "--bootstrap", 0)
    assert split["points"] == 13
    assert "loss 9.9 some are dropped" in " ".join(split["notes"])


def test_repeated_runs_are_told(fit, models):
    rows = models.read_text().splitlines()
    models.write_text("\n".join([*rows, rows[3], rows[5]]))
    found = fit(models, "--bootstrap", 0)
    assert found["points"] == 14
    assert "2 points repeat" in " ".join(found["notes"])


def test_seed_and_resamples_change_the_bootstrap_alone(fit, models):
    one, again, other = (fit(models, "--bootstrap", 20, "--seed", seed) for seed in (1, 1, 2))
    assert one["intervals"] == again["intervals"]
    assert one["intervals"]["bootstrap"] != other["intervals"]["bootstrap"]
    assert one["intervals"]["profile"] == other["intervals"]["profile"]


def test_the_error_of_a_bootstrap_is_that_of_a_sample(fit, models):
    """Of two resamples it is their distance over the root of 2; the interval is 95 % of the distance."""
    drawn = fit(models, "--bootstrap", 2)["intervals"]["bootstrap"]
    for name, (low, high) in drawn["ci95"].items():
        assert drawn["se"][name] == pytest.approx((high - low) / 0.95 / 2**0.5)


def test_the_interval_of_90_percent_decides_the_verdict(fit, tmp_path):
    sizes = np.geomspace(18e6, 2e9, 8)
    noise = 0.016 * np.random.default_rng(0).standard_normal(8)
    found = fit(write(tmp_path / "noisy.csv", sizes, 5 + (4e8 / sizes) ** 0.2 + noise))
    widths = [
        high - low for low, high in (found["E_range95"], found["intervals"]["profile"]["ci90"]["E"])
    ]
    assert widths[0] > 0.3 > widths[1] and found["verdict"] == "ok"


def test_an_estimate_is_compared_and_not_fixed(cli, fit, models, floor, tmp_path):
    path, mean, last = floor
    alone = fit(models, "--bootstrap", 0)
    code, out, _ = cli("fit", models, "--bootstrap", 0, "--floor", path, "-o", tmp_path / "law.json")
    assert code == 0
    beside = json.loads((tmp_path / "law.json").read_text())
    assert beside["parameters"] == alone["parameters"]
    assert beside["floor"]["value"] == pytest.approx(mean)
    assert beside["floor"]["position"] == "below"
    of_last = fit(models, "--bootstrap", 0, "--floor", path, "--floor-average", "last")
    assert of_last["floor"]["value"] == pytest.approx(last)
    assert f"the assignment entropy, {mean:.4f}" in out
    assert "lies below the 95 % interval of E" in " ".join(out.split())


@pytest.mark.parametrize(
    ("form", "kind"), [("power", "png"), ("chinchilla", "svg"), ("refused", "pdf"), ("refused", "png")]
)
def test_every_form_is_drawn_in_every_kind_of_file(cli, tmp_path, models, floor, form, kind):
    picture, argv = tmp_path / f"law.{kind}", [models, "--floor", floor[0], "--bootstrap", 0]
    if form == "chinchilla":
        tokens = np.tile(np.geomspace(1e9, 3e11, 4), 3)
        losses = 1.8 + 480 / TWELVE**0.35 + 2100 / tokens**0.37
        rows = [f"{n},{d},{loss}" for n, d, loss in zip(TWELVE, tokens, losses, strict=True)]
        models.write_text("\n".join(["N,D,loss", *rows]))
        argv = [models, "--form", "chinchilla", "--bootstrap", 0]
    elif form == "refused":
        models.write_text("N,loss\n1e8,6\n2e8,5\n")
    code, out, err = cli("fit", *argv, "-o", picture)
    assert code == 0, err
    assert "verdict" in out
    if kind == "png":
        assert np.asarray(Image.open(picture).convert("L")).min() < 100
    elif kind == "svg":
        assert ET.parse(picture).getroot().tag.endswith("svg")
    else:
        assert picture.read_bytes().startswith(b"%PDF")


def test_the_result_in_a_file_is_that_on_stdout(cli, tmp_path, models):
    output = tmp_path / "law.json"
    code, out, _ = cli("fit", models, "--bootstrap", 0, "--json", "-o", output)
    assert code == 0
    assert json.loads(output.read_text()) == json.loads(out)


def test_the_table_holds_headline_parameters_and_verdict(cli, models):
    _, out, _ = cli("fit", models, "--bootstrap", 20)
    assert out.startswith("Extrapolated irreducible loss E: ")
    for words in ("N0", "parameters", "verdict", "ok: ", "L = E + (N0/N)^alpha", "model-based"):
        assert words in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["--floor", "7"], 3, "expected an E below every loss"),
        (["--floor", "-1"], 2, "expected a number from 0"),
        (["--floor", "nan"], 2, "expected a number from 0"),
        (["--floor", "gone.json"], 2, "there is no such file"),
        (["--floor-average", "last"], 2, "only with --floor RESULT.json"),
        (["--floor-average", "last", "--floor", "1"], 2, "only with --floor RESULT.json"),
        (["--drop-largest", "12"], 3, "leaves none of 12 points"),
        (["--form", "power", "--flop", "x"], 2, "power has no data size"),
        (["--flop", "x", "--data-size", "y"], 2, "not with --flop"),
        (["--form", "chinchilla"], 3, "Give --data-size or --flop"),
        (["--size", "weights"], 3, "no column 'weights'"),
        (["--bootstrap", "1"], 2, "expected 0 or at least 2"),
        (["--output", "law.txt"], 2, "ends in .json, .png, .svg, .pdf"),
        (["--output", "no/law.png"], 3, "there is no folder"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(cli, models, argv, code, words):
    found, out, err = cli("fit", models, *argv)
    assert (found, out) == (code, "")
    assert words in " ".join(err.split())
    assert "Traceback" not in err


def test_the_table_is_not_overwritten(cli, models, tmp_path):
    table = models.rename(tmp_path / "models.json")
    before = table.read_text()
    code, _, err = cli("fit", table, "-o", table)
    assert code == 3
    assert "is the same file" in err
    assert table.read_text() == before


def test_sizes_in_billions_are_told_or_refused(cli, fit, tmp_path):
    table = write(tmp_path / "b.csv", TWELVE / 1e9, 5 + (4e8 / TWELVE) ** 0.2)
    assert "in that unit" in " ".join(fit(table, "--bootstrap", 0)["notes"])
    table.write_text("N,FLOP,loss\n0.31,1e20,6\n2.0,1e21,5\n")
    code, _, err = cli("fit", table, "--form", "chinchilla")
    assert code == 3
    assert "Write 310M or 3.1e8" in err


def test_a_fit_imports_no_torch_and_starts_no_threads_but_that_of_progress_bars(models):
    code = (
        "import os, sys; from entropy_cli.cli import main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules; assert len(os.listdir('/proc/self/task')) <= 2;"
        "sys.exit(code)"
    )
    argv = [sys.executable, "-c", code, "fit", models, "--bootstrap", "0"]
    environment = {name: text for name, text in os.environ.items() if "NUM_THREADS" not in name}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def test_a_given_floor_that_the_points_speak_against(fit, tmp_path):
    generator = np.random.default_rng(0)
    sizes = np.geomspace(2e7, 4e9, 10)
    losses = 5 + (4e8 / sizes) ** 0.2 + generator.normal(0, 0.002, 10)
    table = write(tmp_path / "models.csv", sizes, losses)
    found = fit(table, "--floor", 5.2, "--bootstrap", 0)
    assert found["verdict"] == "weak"
    assert "the points contradict it" in found["reason"]
    assert fit(table, "--floor", 5.0, "--bootstrap", 0)["verdict"] == "ok"


def test_a_bootstrap_that_is_not_made_is_told(fit, tmp_path):
    sizes = np.geomspace(2e7, 4e9, 6)
    table = write(tmp_path / "models.csv", sizes, 5 + (4e8 / sizes) ** 0.2)
    assert "No bootstrap" in " ".join(fit(table, "--bootstrap", 10)["notes"])
