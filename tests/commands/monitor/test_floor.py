"""`entropy_cli.Floor` inside a training loop."""

import json
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from entropy_cli import Floor
from entropy_cli.core.errors import EntropyCliError, ResultError, ShapeError

pytestmark = pytest.mark.xdist_group("ladder_result")


@pytest.fixture
def result(ladder_result):
    return json.loads(ladder_result.read_text())


@pytest.fixture
def floor(ladder_result):
    return Floor.load(ladder_result)


@pytest.fixture
def without_ladder(result, tmp_path):
    """The floor of a tokenizer with soft labels, and no ladder."""
    path = tmp_path / "result.json"
    tokenizer = {**result["tokenizer"], "labels": "soft"}
    path.write_text(json.dumps({**result, "tokenizer": tokenizer, "ladder": None}))
    return Floor.load(str(path))


def check_all(floor, values, series="mean", steps=None):
    """What is found at each value, as (step, id)."""
    steps = range(len(values)) if steps is None else steps
    found = [
        (step, one)
        for step, value in zip(steps, values, strict=True)
        for one in floor.check(value, series, step)
    ]
    assert not any("(--" in one.message for _, one in found)  # there are no options in a loop
    return [(step, one.id) for step, one in found]


def noise(points, sigma=0.02, seed=0):
    return np.random.default_rng(seed).normal(0, sigma, points)


class TestExcess:
    def test_of_every_scale_and_average_beside_the_result(self, floor, result):
        loss_S = [3.0, 3.1, 2.5, 2.25]
        tokens_S = [scale["tokens"] for scale in result["scales"]]
        found = floor.excess(loss_S)
        ladder = {rung["id"]: rung for rung in result["ladder"]["rungs"]}
        means = {
            "token_weighted": math.fsum(map(math.prod, zip(loss_S, tokens_S, strict=True)))
            / sum(tokens_S),
            "over_scales": math.fsum(loss_S) / 4,
            "last_scale": 2.25,
        }
        pairs = [(found.scales[s], loss_S[s], result["scales"][s], ladder, s) for s in range(4)]
        for kind, mean in means.items():
            of = result["average"][kind]
            pairs.append((getattr(found.average, kind), mean, of, ladder, kind))
        for one, loss, quantities, rungs, key in pairs:
            assert one.loss == pytest.approx(loss, abs=1e-12)
            expected = loss - quantities["assignment_entropy"]["value"]
            assert one.ce_minus_a == pytest.approx(expected, abs=1e-12)
            limits = {"uniform": math.log(48), "unigram": quantities["unigram_bracket"]["upper95"]}
            for name in ("position", "class", "context"):
                rung = rungs[name]
                bound = rung["scales"][key] if isinstance(key, int) else rung["average"][key]
                limits[name] = bound["upper95"]
            assert one.below == pytest.approx(
                {k: limit - loss for k, limit in limits.items()}, abs=1e-12
            )

    @pytest.mark.parametrize("kind", [np.array, torch.tensor, tuple])
    def test_of_arrays_and_tensors(self, floor, kind):
        loss_S = [3.0, 3.5, 2.5, 2.25]
        assert floor.excess(kind(loss_S)) == floor.excess(loss_S)

    def test_of_one_loss(self, floor, without_ladder, result):
        tail = floor.excess_of(torch.tensor(2.5), "val last")
        assert tail == floor.excess([9, 9, 9, 2.5]).average.last_scale
        assert tail.metrics("L_tail")["ce_minus_a/L_tail"] == tail.ce_minus_a
        assert tail.metrics("L_tail")["below_class/L_tail"] == tail.below["class"]
        assert list(without_ladder.excess_of(2.5).below) == ["uniform", "unigram"]
        assert floor.tokens_S == [1, 4, 16, 64]
        assert math.isnan(floor.excess_of(math.nan).ce_minus_a)

    def test_of_something_else_is_refused(self, floor, tmp_path):
        for losses in ([1, 2, 3], [1, 2, 3, 4, 5], 3.0, torch.tensor(3.0)):
            with pytest.raises(ShapeError, match="expected 4, one for each scale"):
                floor.excess(losses)
        for value in ("a", None, torch.ones(2)):
            with pytest.raises(EntropyCliError, match="expected a number"):
                floor.excess_of(value)
        for series in ("scale 4", "tail", "val", "last val"):
            with pytest.raises(
                EntropyCliError, match="expected mean, last or scale 0 to scale 3; of held"
            ):
                floor.check(3.0, series)
        with pytest.raises(ResultError, match="can't be read"):
            Floor.load(tmp_path / "nowhere.json")


class TestCheck:
    def test_a_run_that_falls_has_no_findings(self, floor):
        curve = 2.5 + 1.4 * np.arange(1, 1001) ** -0.2 + noise(1000)
        assert check_all(floor, curve) == []

    def test_a_plateau_is_told_once_where_the_log_has_it(self, floor, ladder_result, cli, tmp_path):
        curve = np.maximum(3.87 - 0.01 * np.arange(600), 2.8) + noise(600, 0.003)
        found = check_all(floor, curve, "last")
        assert [id_ for _, id_ in found] == ["plateau"] and found[0][0] > 150
        log = tmp_path / "log.csv"
        rows = [f"{step},{value}" for step, value in enumerate(curve[: found[0][0] + 1])]
        log.write_text("\n".join(["step,L_tail", *rows]) + "\n")
        _, out, _ = cli("monitor", log, "--floor", ladder_result, "--json")
        assert "plateau" in {one["id"] for one in json.loads(out)["findings"]}

    def test_a_short_run_has_no_plateau(self, floor):
        assert check_all(floor, [3.87] + [2.8] * 62) == []

    def test_a_sum_over_accumulation_steps_is_told(self, floor):
        ids = [id_ for _, id_ in check_all(floor, 2 * (2.5 + 1.4 * np.arange(1, 101) ** -0.2))]
        assert ids == ["summed_loss"]

    def test_overfitting_compares_evaluations_with_training(self, floor):
        found = []
        for i in range(40):
            found += floor.check(3.5 - 0.01 * i, "mean", 100 * i)
            found += floor.check(3.6 + 0.02 * abs(i - 15), "val mean", 100 * i)
        (one,) = [one for one in found if one.id == "overfitting"]
        assert (one.series, one.severity, one.evidence["at"]) == (
            "val mean",
            "warning",
            {"step": 1500.0},
        )
        assert one.evidence["train_at_best"] == pytest.approx(3.35)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_nan_is_told_at_once_and_once(self, floor, value):
        curve = 2.5 + 1.4 * np.arange(1, 501) ** -0.2
        assert check_all(floor, [*curve, *[value] * 5]) == [(500, "nan")]

    def test_above_the_unigram_only_when_it_no_longer_falls(self, floor):
        ceiling = floor.levels.mean.ceiling
        falling = ceiling + 0.5 + np.geomspace(1, 0.01, 300) + noise(300)
        assert "above_unigram" not in dict(map(reversed, check_all(floor, falling)))
        stuck = check_all(floor, ceiling + 0.3 + noise(300, 0.002), "last")
        assert [id_ for _, id_ in stuck] == ["above_unigram"]  # and no plateau that would stop it

    def test_below_a_floor_of_hard_labels_is_no_error(self, floor, without_ladder):
        assert (floor.labels, without_ladder.labels) == ("hard", "soft")
        low = floor.levels.mean.floor - 0.1
        (hard,), (soft,) = floor.check(low), without_ladder.check(low)
        assert "in nats and not in bits, and" in soft.message
        assert hard.id == soft.id == "below_floor"
        assert (hard.severity, soft.severity) == ("info", "warning")
        assert "CE - A may be negative" in hard.message and "impossible" not in hard.message
        assert "reducible" not in repr(vars(floor.excess_of(low))) + hard.message + repr(floor)

    def test_a_scale_has_its_own_floor(self, floor, result):
        entropy = result["scales"][2]["assignment_entropy"]["value"]
        assert floor.check(entropy, "scale 2") == []
        assert [one.id for one in floor.check(entropy - 0.3, "scale 2")] == ["below_floor"]

    def test_an_earlier_step_replaces_what_came_after(self, floor, ladder_result):
        """A run that goes back to a checkpoint is checked as if it had never been elsewhere."""
        curve = np.maximum(3.87 - 0.01 * np.arange(600), 2.8) + noise(600, 0.003)
        expected = check_all(Floor.load(ladder_result), curve)
        astray = check_all(floor, [*curve[:120], 2.9, 2.5], steps=range(122))
        rest = check_all(floor, curve[100:], steps=range(100, 600))
        assert (astray, rest) == ([], expected) and expected != []

    def test_pickled_it_remembers_the_run(self, ladder_result):
        curve = np.maximum(3.87 - 0.01 * np.arange(600), 2.8) + noise(600, 0.003)
        whole, floor = Floor.load(ladder_result), Floor.load(ladder_result)
        expected = check_all(whole, curve)
        first = check_all(floor, curve[:250])
        floor = pickle.loads(pickle.dumps(floor))
        rest = check_all(floor, curve[250:], steps=range(250, 600))
        assert first + rest == expected != []


def test_needs_no_torch(ladder_result):
    code = (
        "import sys, pickle; from entropy_cli import Floor; floor = Floor.load(sys.argv[1]);"
        "floor.check(3.0); floor.excess([3.0] * 4); pickle.dumps(floor);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, ladder_result], check=False).returncode == 0


def test_the_loop_of_the_docstring_runs(ladder_result, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "result.json").write_text(ladder_result.read_text())
    text = Floor.__doc__.split("final scale:\n")[1].split("Attributes:")[0]
    lines = [line.removeprefix(" " * 8) for line in text.strip("\n").splitlines()]
    assert len([line for line in lines if line.strip()]) == 6
    generator = torch.Generator().manual_seed(0)

    def train():
        for step in range(30):
            logits_BLV = torch.randn(2, 85, 48, generator=generator)
            logits_BLV[:, -64:] += math.nan if step == 20 else 0
            yield logits_BLV, torch.randint(48, (2, 85), generator=generator)

    names = {
        "train": train,
        "cross_entropy": torch.nn.functional.cross_entropy,
        "patch_nums": (1, 2, 4, 8),
    }
    exec("import entropy_cli\n" + "\n".join(lines), names)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2 and all(line.startswith("20 error NaN or infinity") for line in told)
