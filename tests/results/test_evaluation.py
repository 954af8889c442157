"""The file of an evaluation: an estimate's keys with the losses among them, read strictly."""

import dataclasses
import json
import math
import re

import pytest

from entropy_cli.core.errors import ResultError
from entropy_cli.results.evaluation import from_dict, read_evaluation
from entropy_cli.results.floors import read_floor
from entropy_cli.results.schema import read_result
from tests.evaluations import evaluation_of


@pytest.fixture
def evaluation(estimated):
    return evaluation_of(estimated)


@pytest.fixture
def content(evaluation):
    return json.loads(evaluation.to_json())


@pytest.mark.parametrize("options", [{}, {"worth": None, "soft": False}])
def test_an_evaluation_comes_back_as_it_was(estimated, options, tmp_path):
    evaluation = evaluation_of(estimated, **options)
    evaluation.write(tmp_path / "e.json")
    assert read_evaluation(tmp_path / "e.json") == evaluation
    content = json.loads((tmp_path / "e.json").read_text())
    assert json.loads(from_dict(content).to_json()) == content


def test_the_file_has_the_keys_of_an_estimate_and_the_losses_in_every_part(estimated, content):
    base = json.loads(estimated.to_json())
    assert list(content)[:2] == ["schema", "schema_version"] and set(base) < set(content)
    assert (content["schema"], content["schema_version"]) == ("entropy-cli/evaluate", 1)
    assert set(content) - set(base) == {
        *("model", "labels", "total", "cross_entropy_history", "model_precision_check", "extremes"),
    }
    for part, before in [
        *zip(content["scales"], base["scales"], strict=True),
        *((content["average"][kind], before) for kind, before in base["average"].items()),
    ]:
        assert part["unigram_perplexity"] == before["perplexity"]
        assert part["perplexity"]["value"] == pytest.approx(math.exp(part["cross_entropy"]["value"]))
        assert part["assignment_entropy"] == before["assignment_entropy"]
        assert {"accuracy_top1", "accuracy_top5", "predictive_entropy", "gain", "kl"} < set(part)
    for at, before in zip(content["temperatures"], base["temperatures"], strict=True):
        for part in (*at["scales"], *at["average"].values()):
            assert part["kl"]["value"] == 0.7 and "cross_entropy" not in part
        assert at["temperature"] == before["temperature"]


def test_whatever_reads_an_estimate_reads_it_from_an_evaluation(estimated, evaluation, tmp_path, cli):
    path = tmp_path / "e.json"
    evaluation.write(path)
    found = read_result(path)
    assert found.average == estimated.average and found.scales == estimated.scales
    assert found.schema == "entropy-cli/estimate"
    assert read_floor(path).mean.floor == estimated.average.token_weighted.assignment_entropy.value


def changed(content, path, value):
    """The content with one place replaced, or removed if the value is None."""
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return copy


MEAN = ["average", "token_weighted"]


@pytest.mark.parametrize(
    "path, value, words",
    [
        (["schema"], "entropy-cli/estimate", "not a result of entropy-cli evaluate"),
        (["schema_version"], 2, "this program reads 1. Upgrade"),
        (["schema_version"], 0, "Evaluate again"),
        (["surprise"], 1, r"unknown key - at `\$.surprise`"),
        (["scales", 1, "surprise"], 1, r"unknown key - at `\$.scales\[1\].surprise`"),
        (["scales", 1, "cross_entropy"], None, r"`cross_entropy` - at `\$.scales\[1\]`"),
        ([*MEAN, "assignment_entropy"], None, "missing required field"),
        (["scales", 0], {}, "missing required field"),
        (["scales"], 3, "got `int`"),
        (["average"], [], "got `array`"),
        (["scales"], [], "at `"),
        ([*MEAN, "cross_entropy", "se"], -1.0, "a number from 0 - at `"),
        ([*MEAN, "cross_entropy", "value"], -1.0, r"average.token_weighted.cross_entropy.value`"),
        ([*MEAN, "accuracy_top1", "value"], 1.5, "a number from 0 to 1"),
        ([*MEAN, "predictive_entropy", "value"], 9.0, "a number from 0 to 3.87"),
        ([*MEAN, "perplexity", "value"], 0.5, "a number from 1 to inf"),
        (["temperatures", 0, "average", "last_scale", "kl", "value"], -0.1, "a number from 0"),
        (["temperatures", 0, "scales"], [], r"temperatures\[0\].scales"),
        (["model", "heads"], 0, "model.heads"),
        (["labels", "source"], "guess", "labels.source"),
        (["labels", "classes_seen"], 0, "labels.classes_seen"),
        (["labels", "check", "images"], 0, "labels.check.images"),
        (["replicates", "cross_entropy"], [[1.0]], "replicates.cross_entropy"),
        (["replicates", "cross_entropy"], None, "replicates.cross_entropy"),
        (["total", "nats_per_image"], 1.0, "total.nats_per_image"),
        (["total", "bits_per_pixel"], 7.0, "total.bits_per_pixel"),
        (["provenance", "model"], 1, "provenance.model"),
        (["model_precision_check"], {"images": 1}, "model_precision_check"),
    ],
)
def test_other_content_is_refused_by_place(content, path, value, words):
    with pytest.raises(ResultError, match=words) as caught:
        from_dict(changed(content, path, value))
    assert not re.search(r"estimate\.\w", str(caught.value))


def test_no_nan_gets_into_a_file(evaluation):
    with pytest.raises(ValueError, match="JSON"):
        dataclasses.replace(
            evaluation, total=dataclasses.replace(evaluation.total, nats_per_image=math.nan)
        ).to_json()
