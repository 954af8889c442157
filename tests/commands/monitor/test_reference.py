"""A log beside what `evaluate` measured of the model."""

import json
import math

import numpy as np
import pytest

from entropy_cli.results.schema import from_dict
from tests import training_logs as logs
from tests.evaluations import evaluation_of


@pytest.fixture
def evaluation(baseline):
    return evaluation_of(from_dict(baseline))


@pytest.fixture
def compare(cli, tmp_path, evaluation):
    """Findings about losses of VAR that end at these values, beside an evaluation, by their series."""

    def run(mean, last, of=evaluation):
        log, path = tmp_path / "log.txt", tmp_path / "evaluation.json"
        of.write(path)
        start = math.log(of.estimate.tokenizer.vocab_size)
        falls = np.geomspace(1, 1e-9, 40)
        curves = [(end + (start - end) * falls).tolist() for end in (mean, last)]
        log.write_text(logs.var_log_txt(*curves, first_epoch=1))
        code, out, err = cli("monitor", log, "--reference", path, "--json")
        assert code == 0, err
        return {one["series"]: one for one in json.loads(out)["findings"] if one["id"] == "reference"}

    return run


def test_losses_are_set_beside_what_was_measured_of_their_tokens(compare, evaluation):
    mean, last = evaluation.average.token_weighted.as_logged, evaluation.average.last_scale.as_logged
    found = compare(mean.value + 0.01, last.value - 0.01)
    for name, of, difference in (("L_mean", mean, 0.01), ("L_tail", last, -0.01)):
        one = found[name]
        assert one["severity"] == "info"
        assert "agrees with the evaluation" in one["message"] and "as logged" in one["message"]
        assert one["evidence"]["value"] == of.value
        assert one["evidence"]["difference"] == pytest.approx(difference, abs=1e-6)
        assert one["evidence"]["error"] >= of.se


def test_a_loss_of_another_model_is_said_to_be(compare, evaluation):
    mean, last = (
        getattr(evaluation.average, kind).as_logged.value for kind in ("token_weighted", "last_scale")
    )
    found = compare(mean + 0.5, last - 0.5)
    above, below = found["L_mean"]["message"], found["L_tail"]["message"]
    assert "0.5000 above the evaluation" in above and "EMA" in above
    assert "0.5000 below the evaluation" in below and "memorised" in below
    held_out = found["vL_mean"]["message"]  # 5.95
    assert held_out.startswith("val loss of 5.9500 at the end is") and "EMA" in held_out


def test_without_a_label_check_the_cross_entropy_counts(compare, evaluation):
    bare = evaluation_of(evaluation.estimate, worth=None)
    one = compare(bare.average.token_weighted.cross_entropy.value, 3.0, of=bare)["L_mean"]
    assert one["evidence"]["kind"] == "cross_entropy"
    assert one["evidence"]["value"] == bare.average.token_weighted.cross_entropy.value


def test_each_scale_has_its_own(cli, tmp_path, evaluation):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    path = tmp_path / "evaluation.json"
    evaluation.write(path)
    side = evaluation.estimate.scales[2].patch_num
    logged = evaluation.scales[2].as_logged.value
    with SummaryWriter(str(tmp_path / "run")) as writer:
        for step in range(40):
            writer.add_scalar(f"AR_iter_loss/L_{16 * side}", logged + 1 / (1 + step) ** 3, step)
    _, out, _ = cli("monitor", tmp_path / "run", "--reference", path, "--json")
    (one,) = [one for one in json.loads(out)["findings"] if one["id"] == "reference"]
    assert one["evidence"]["value"] == logged


def test_a_reference_of_another_tokenizer_is_compared_with_nothing(cli, tmp_path, evaluation):
    log, path = tmp_path / "log.txt", tmp_path / "evaluation.json"
    evaluation.write(path)
    log.write_text(logs.var_stdout())  # of ten scales and 4096 codes
    _, out, _ = cli("monitor", log, "--reference", path, "--json")
    found = [one for one in json.loads(out)["findings"] if one["id"] in ("reference", "other_tokenizer")]
    assert [one["id"] for one in found] == ["other_tokenizer"]
    assert found[0]["message"].startswith("the reference is of another tokenizer")


def test_only_a_result_of_evaluate_is_one(cli, tmp_path, baseline):
    log, result = tmp_path / "log.csv", tmp_path / "result.json"
    log.write_text("step,loss\n1,3.0\n2,2.0\n")
    result.write_text(json.dumps(baseline))
    code, _, err = cli("monitor", log, "--reference", result)
    assert code == 3 and "not a result of entropy-cli evaluate" in err
    code, _, err = cli("monitor", log, "--reference", tmp_path / "none.json")
    assert code == 3 and "none.json" in err
