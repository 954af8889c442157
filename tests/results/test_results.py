"""The result as a file and as text: strict reading, notes that apply, numbers of one source."""

import dataclasses
import json
import math
import re

import pytest

from entropy_cli.core import files
from entropy_cli.core.errors import ResultError
from entropy_cli.entropy.quantity import UNDERSAMPLED, Estimate
from entropy_cli.results.notes import notes
from entropy_cli.results.schema import from_dict, read_result
from entropy_cli.results.tables import render


@pytest.fixture(scope="module")
def content(tmp_path_factory, images, checkpoint):
    """A result as its JSON."""
    from entropy_cli.cli import main

    path = tmp_path_factory.mktemp("result") / "result.json"
    argv = ["estimate", "--data", images, "--ckpt", checkpoint, "-o", path, "--temperature", "1,0.5"]
    assert main([str(part) for part in [*argv, "--workers", "0"]]) == 0
    return json.loads(path.read_text())


@pytest.fixture
def result(content):
    return from_dict(content)


def test_a_result_comes_back_as_it_was(content, result, tmp_path):
    assert json.loads(result.to_json()) == content
    result.write(tmp_path / "r.json")
    assert read_result(tmp_path / "r.json") == result


def changed(content, path, value):
    """A deep copy of the content with one place replaced, or removed if the value is None."""
    copy = json.loads(json.dumps(content))
    *parents, last = path
    inner = copy
    for key in parents:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    if path == ["data", "images_used"] and isinstance(value, int):
        images_G = copy["replicates"]["images"]
        images_G[:] = [value, *[0] * (len(images_G) - 1)]
    return copy


def fit_that(*ended):
    """How temperatures were fitted, with these ends of the fit."""
    return {"images": 9, "hard": [1.0] * len(ended), "steps": [1] * len(ended), "ended": ended}


@pytest.mark.parametrize(
    "path, value, words",
    [
        (["schema"], "other", "not a result"),
        (["schema_version"], 2, "Upgrade"),
        (["schema_version"], 0, "Estimate again"),
        (["units"], None, "missing required field `units`"),
        (["surprise"], 1, r"unknown key - at `\$.surprise`"),
        (["data", "images_used"], "many", r"got `str` - at `\$.data.images_used`"),
        (["scales", 1, "tokens"], 1.5, r"got `float` - at `\$.scales\[\S*\].tokens`"),
        (
            ["average", "last_scale", "varentropy", "se"],
            "x",
            r"got `str` - at `\$.average.last_scale.varentropy.se`",
        ),
        (["average", "last_scale", "varentropy", "se"], -1.0, "expected a number from 0"),
        (["average", "token_weighted", "assignment_entropy", "ci95"], [1.0], "length 2, got 1"),
        (["average", "token_weighted", "assignment_entropy", "ci95"], [2.0, 1.0], "lower limit first"),
        (["average", "last_scale", "assignment_entropy", "value"], math.nan, "not finite"),
        (["average", "last_scale", "assignment_entropy", "value"], 10**400, "not finite"),
        (["scales", 1, "temperature"], -1.0, "a positive number"),
        (["scales", 1, "tokens"], 0, "at least 1"),
        (["tokenizer", "vocab_size"], 0, "at least 1"),
        (["replicates", "images"], [1], "counts"),
        (["replicates", "assignment_entropy"], [[1.0]], "rows of"),
        (["provenance", "data"], None, r"field `data` - at `\$.provenance`"),
        (["precision_check"], {}, r"at `\$.precision_check`"),
        (["target_reached"], True, "the target"),
        (["scales"], {}, r"got `object` - at `\$.scales`"),
    ],
)
def test_other_content_is_refused_by_place(content, path, value, words):
    with pytest.raises(ResultError, match=words):
        from_dict(changed(content, path, value))


def test_files_that_are_no_results(tmp_path):
    for name, text, words in (
        ("a", "{", "not JSON"),
        ("b", "[]", "not a result"),
        ("c", None, "can't be read"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(ResultError, match=words):
            read_result(tmp_path / name)


def test_no_nan_gets_into_a_file(result):
    with pytest.raises(ValueError, match="JSON"):
        dataclasses.replace(result, provenance={"seconds": math.nan}).to_json()


def test_the_table_shows_the_numbers_of_the_result(content, result):
    place = ["scales", 2, "marginal_entropy", "value"]
    assert "1.2345" not in render(result)
    assert "1.2345" in render(from_dict(changed(content, place, 1.23451)))
    text = render(result)
    assert all(len(line) <= 80 or "/" in line for line in text.splitlines())  # only paths are longer
    assert "Assignment entropy at each temperature" in text


def test_bounds_are_marked(content):
    bound = dataclasses.asdict(Estimate(2.5, 2.5, 0.1, None, "plug-in", UNDERSAMPLED))
    result = from_dict(changed(content, ["scales", 3, "unigram_entropy"], bound))
    assert re.search(r"≥ 2\.5000 .*\n.* ± 0\.1000 ", render(result))
    assert any("8 x 8" in note and "lower bound" in note for note in notes(result))


@pytest.mark.parametrize(
    "path, value, words",
    [
        (["data", "split"], "train", "random crops"),
        (["data", "images_used"], 999, "images are few"),
        (["data", "images_failed"], 3, "3 images could not be read"),
        (["provenance", "checkpoint_notes"], ["ten rows"], "ten rows"),
        (["provenance", "temperature_fit"], fit_that("flat", "converged"), "Scale 0: the fitted"),
        (["provenance", "temperature_fit"], fit_that("converged", "slow"), "Scale 1: the fit"),
        (["average", "token_weighted", "assignment_entropy", "value"], 3.86, "close to its maximum"),
    ],
)
def test_notes_come_when_they_apply(content, path, value, words):
    plain = changed(content, ["data", "images_used"], 5000)
    plain["data"]["images_found"] = 5000
    assert not any(words in note for note in notes(from_dict(plain)))
    assert any(words in note for note in notes(from_dict(changed(plain, path, value))))


def test_the_drift_of_fitted_temperatures_is_said(content):
    # Every temperature e times higher: to first order the entropy grows by the varentropy.
    implied = [math.e * scale["temperature"] for scale in content["scales"]]
    fitted = changed(content, ["provenance", "temperature_implied"], implied)
    average = content["average"]["token_weighted"]
    expected = average["assignment_entropy"]["value"] + average["varentropy"]["value"]
    assert any(f"{expected:.4f} nats (to first order)" in note for note in notes(from_dict(fitted)))


def test_part_of_a_set_is_said(content):
    part = changed(content, ["data", "images_used"], 5000)
    part["data"]["images_found"] = 50_000
    assert any("5000 of 50000" in note for note in notes(from_dict(part)))


def test_poorly_covered_usage_is_a_bound(content):
    place = ["scales", 0, "usage_estimate"]
    bound = dataclasses.asdict(Estimate(0.25, 0.25, 0.01, None, "codes seen", UNDERSAMPLED))
    text = render(from_dict(changed(content, place, bound)))
    assert re.search(r"≥ 25\.0 .*\n.* ± 1\.0 %", text)


def test_what_the_number_is_no_floor_of_is_always_said(result):
    assert any("neither floor nor ceiling" in note for note in notes(result))


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "target").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    files.write_atomically(tmp_path / "link", lambda temporary: temporary.write_text("after"))
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "after"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def half(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ResultError, match="No space left"):
        files.write_atomically(path, half)
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["file"]
    files.write_atomically(path, lambda temporary: temporary.write_text("after"))
    assert path.read_text() == "after"
