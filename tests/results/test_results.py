"""The result as a file and as text: strict reading, notes that apply, numbers of one source."""

import dataclasses
import json
import math
import os
import re

import pytest

from entropy_cli.core import files
from entropy_cli.core.errors import ResultError
from entropy_cli.entropy.quantity import UNDERSAMPLED, Estimate, perplexity
from entropy_cli.results.checks import drift, find_checks
from entropy_cli.results.notes import notes
from entropy_cli.results.published import is_var_style
from entropy_cli.results.schema import from_dict, read_result
from entropy_cli.results.summary import digits, summary_table, usage
from entropy_cli.results.text import render


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
        (["schema_version"], 3, "Upgrade"),
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
        (["average", "last_scale", "unigram_bracket", "upper95"], 9.0, "numbers from 0 to ln V"),
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
        (["temperatures", 1, "scales"], [], "4 scales"),
        (["scales", 1, "code_counts"], [1], "as many code_counts"),
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
        ("d", '{"schema": "entropy-cli/loss"}', "not a result of entropy-cli estimate, but one of loss"),
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
    assert "1.2345" not in render(result, table=True)
    assert "1.2345" in render(from_dict(changed(content, place, 1.23451)), table=True)
    text = render(result, table=True, explain=True)
    assert all(len(line) <= 80 or "/" in line for line in text.splitlines())  # only paths are longer
    assert "Assignment entropy at each temperature" in text


def test_bounds_are_marked(content):
    bound = dataclasses.asdict(Estimate(2.5, 2.5, 0.1, None, "plug-in", UNDERSAMPLED))
    result = from_dict(changed(content, ["scales", 3, "unigram_entropy"], bound))
    assert re.search(r"≥ 2\.5000 .*\n.* ± 0\.1000 ", render(result, table=True))
    (check,) = (check for check in find_checks(result) if check.id == "undersampled")
    assert "8 x 8" in check.message and "lower bound (≥); the held-out" in check.message


@pytest.mark.parametrize(
    "path, value, words",
    [
        (["provenance", "checkpoint_notes"], ["ten rows"], "ten rows"),
        (["provenance", "temperature_fit"], fit_that("flat", "converged"), "Scale 0: the fitted"),
        (["provenance", "temperature_fit"], fit_that("converged", "slow"), "Scale 1: the fit"),
    ],
)
def test_notes_come_when_they_apply(content, path, value, words):
    plain = changed(content, ["data", "images_used"], 5000)
    plain["data"]["images_found"] = 5000
    assert not any(words in note for note in notes(from_dict(plain)))
    assert any(words in note for note in notes(from_dict(changed(plain, path, value))))


def check(content, id_):
    """The severity and message of a check of a result, or None and an empty text."""
    found = [check for check in find_checks(from_dict(content)) if check.id == id_]
    return (found[0].severity, found[0].message) if found else (None, "")


def test_the_drift_of_fitted_temperatures_is_checked(content):
    fitted = changed(content, ["temperatures", 0, "temperature"], "auto")
    fitted["settings"]["temperature"] = "auto"
    assert check(fitted, "temperature_drift") == (None, "")
    values = [scale["temperature"] for scale in content["scales"]]
    still = changed(fitted, ["provenance", "temperature_implied"], values)
    assert check(still, "temperature_drift")[0] == "ok"
    # Every temperature e times higher: to first order the entropy grows by the varentropy.
    hotter = [math.e * value for value in values]
    severity, message = check(
        changed(fitted, ["provenance", "temperature_implied"], hotter), "temperature_drift"
    )
    expected = content["average"]["token_weighted"]["varentropy"]["value"]
    assert severity == "care" and f"{expected:+.3f} nats" in message


def test_the_drift_is_that_of_the_fitted_temperature_wherever_it_stands(content):
    other = changed(content, ["temperatures", 1, "temperature"], "auto")
    values = [scale["temperature"] for scale in other["temperatures"][1]["scales"]]
    assert values != [scale["temperature"] for scale in content["scales"]]
    hotter = changed(other, ["provenance", "temperature_implied"], [math.e * value for value in values])
    expected = content["temperatures"][1]["average"]["token_weighted"]["varentropy"]["value"]
    assert drift(from_dict(hotter)) == pytest.approx(expected)


AVERAGE = ["average", "token_weighted"]


@pytest.mark.parametrize(
    ("moved", "half_width", "severity"),
    [(0.006, 0.001, "care"), (-0.006, 0.001, "care"), (0.003, 0.001, "ok"), (0.006, 0.01, "ok")],
)
def test_a_drift_within_the_interval_or_of_a_few_thousandths_is_none(
    content, moved, half_width, severity
):
    average = content["average"]["token_weighted"]
    a, slope = (average[name]["value"] for name in ("assignment_entropy", "varentropy"))
    fitted = changed(content, ["temperatures", 0, "temperature"], "auto")
    implied = [math.exp(moved / slope) * scale["temperature"] for scale in content["scales"]]
    fitted = changed(fitted, ["provenance", "temperature_implied"], implied)
    ends = [a - half_width, a + half_width]
    found = check(changed(fitted, [*AVERAGE, "assignment_entropy", "ci95"], ends), "temperature_drift")
    assert found[0] == severity


@pytest.mark.parametrize(
    "id_, path, value, severity, words",
    [
        ("few_images", ["data", "images_used"], 999, "care", "only 999 images"),
        ("crops_of_train", ["data", "split"], "train", "care", "random crops"),
        ("unreadable", ["data", "images_failed"], 3, "care", "3 images could not be read"),
        ("unreadable", ["data", "images_failed"], 300, "wrong", "300 images could not be read"),
        ("repeats", ["provenance", "repeats"], 6, "care", "6 images repeat another"),
        ("shard", ["provenance", "shard"], [1, 4], "care", "shard 1/4"),
        ("grids", ["provenance", "checkpoint_scales"], 9, "care", "9 scales"),
        ("near_duplicate_codes", ["provenance", "codebook_notes"], ["x"], "care", "coincide"),
    ],
)
def test_checks_come_when_they_apply(content, id_, path, value, severity, words):
    plain = changed(content, ["data", "images_used"], 5000)
    assert check(plain, id_)[0] in (None, "ok")
    found, message = check(changed(plain, path, value), id_)
    assert found == severity and words in message


@pytest.mark.parametrize(
    "id_, path, value, severity",
    [
        ("few_images", ["data", "images_used"], 1000, None),
        ("repeats", ["provenance", "repeats"], 5, None),  # one in a thousand
        ("unreadable", ["data", "images_failed"], 50, "care"),  # of 5,050
        ("unreadable", ["data", "images_failed"], 51, "wrong"),
    ],
)
def test_checks_have_thresholds(content, id_, path, value, severity):
    plain = changed(content, ["data", "images_used"], 5000)
    assert check(changed(plain, path, value), id_)[0] == severity


def with_entropies(content, a, u, labels="hard", error=0.0):
    """A result with A at its two temperatures and U, each with an interval of this half-width."""
    copy = json.loads(json.dumps(content))

    def put(estimate, value):
        estimate |= {"value": value, "ci95": [value - error, value + error], "note": None}

    put(copy["average"]["token_weighted"]["assignment_entropy"], a[0])
    put(copy["average"]["token_weighted"]["unigram_entropy"], u)
    found = {"plug_in": u, "held_out": u, "se": error, "upper95": u + error}
    copy["average"]["token_weighted"]["unigram_bracket"] = found
    for at, value in zip(copy["temperatures"], a, strict=True):
        put(at["average"]["token_weighted"]["assignment_entropy"], value)
    copy["tokenizer"]["labels"] = labels
    return check(copy, "above_unigram")


def test_only_the_headline_above_the_unigram_entropy_is_wrong(content):
    """Another temperature that is too high does not spoil the result, and there is one check of both."""
    severity, message = with_entropies(content, (1.5, 2.0), 1.9)
    assert severity == "care" and "2.00" in message and "1.50" not in message
    severity, message = with_entropies(content, (2.0, 2.1), 1.9)
    assert severity == "wrong" and "(2.00)" in message and "(2.10)" in message


def test_an_assignment_entropy_above_the_unigram_entropy_is_wrong_for_hard_labels(content):
    log_vocab = math.log(content["tokenizer"]["vocab_size"])
    for labels in ("hard", "unknown"):
        assert with_entropies(content, (2.0, 1.0), 1.9, labels)[0] == "wrong"
        assert with_entropies(content, (2.0, 1.0), 2.1, labels)[0] == "ok"
    # Under soft labels a constant prediction reaches the marginal entropy, never less than A.
    assert with_entropies(content, (2.0, 1.0), 1.9, "soft")[0] is None
    assert with_entropies(content, (0.95 * log_vocab, 1.0), log_vocab)[0] == "care"
    assert with_entropies(content, (0.95 * log_vocab, 1.0), 1.0, "soft")[0] == "care"


@pytest.mark.parametrize("error, severity", [(0.06, None), (0.04, "wrong")])
def test_what_the_intervals_leave_open_is_not_said(content, error, severity):
    assert with_entropies(content, (2.0, 1.0), 1.9, error=error)[0] == severity


@pytest.mark.parametrize("half_width, severity", [(0.2, "care"), (0.04, "ok")])
def test_wide_intervals_are_said(content, half_width, severity):
    a = content["average"]["token_weighted"]["assignment_entropy"]["value"]
    wide = changed(content, [*AVERAGE, "assignment_entropy", "ci95"], [a - half_width, a + half_width])
    assert check(wide, "wide_interval")[0] == severity


def test_precision_is_compared_with_the_interval(content):
    """Of each average: with the token-weighted interval ± 0.01, then with that of the final scale."""

    def with_difference(difference, last=0.0, images=64):
        scales = len(content["scales"])
        record = {
            "images": images,
            "reference": "fp32",
            "latent_relative_error": 1e-4,
            "latent_largest_error": 1e-3,
            "tokens_changed": [0.0] * scales,
            "tokens_changed_overall": 0.0,
            "assignment_entropy_difference": [0.0] * (scales - 1) + [last],
            "assignment_entropy_difference_token_weighted": difference,
        }
        changed_one = changed(content, ["precision_check"], record)
        for kind in ("token_weighted", "over_scales", "last_scale"):
            a = content["average"][kind]["assignment_entropy"]["value"]
            path = ["average", kind, "assignment_entropy", "ci95"]
            changed_one = changed(changed_one, path, [a - 0.01, a + 0.01])
        return check(changed_one, "precision")

    for sign in (-1, 1):
        assert with_difference(sign * 0.00099)[0] == with_difference(0, sign * 0.00099)[0] == "ok"
        severity, message = with_difference(sign * 0.00101)
        assert severity == "care" and f"moves A by {sign * 0.001:+.2g} nats" in message
        severity, message = with_difference(0, sign * 0.00101)
        assert severity == "care" and "moves A (final scale) by" in message
    assert "64 images, over a tenth of its interval, ± 0.01" in message
    severity, message = with_difference(0, images=0)
    assert severity == "care" and "was not compared with fp32" in message


def test_the_temperatures_slope_is_compared_with_the_interval(content):
    """A fit changes with T by the varentropy for each factor e: by ln 1.1 of it for 10 %."""
    a = content["average"]["token_weighted"]["assignment_entropy"]["value"]
    slope = content["average"]["token_weighted"]["varentropy"]["value"] * math.log(1.1)
    for factor, severity in ((0.9, "care"), (1.1, "ok")):
        ends = [a - factor * slope, a + factor * slope]
        found = changed(content, [*AVERAGE, "assignment_entropy", "ci95"], ends)
        assert check(found, "temperature_slope")[0] == severity
    ends = [a - 0.9 * slope, a + 0.9 * slope]
    found = changed(content, [*AVERAGE, "assignment_entropy", "ci95"], ends)
    assert f"moves by {slope:.2g} nats" in check(found, "temperature_slope")[1]


def test_a_result_of_version_1_is_still_read(content, result):
    older = json.loads(json.dumps(content))
    older["schema_version"] = 1
    del older["checks"], older["pooled"], older["tokenizer"]["labels"]
    read = from_dict(older)
    assert read.average == result.average and read.scales == result.scales
    assert (read.checks, read.pooled, read.tokenizer.labels) == ([], None, "unknown")
    assert "only 70 images" in render(read)  # checked anew
    for key in ("checks", "pooled"):
        with pytest.raises(ResultError, match=f"missing required field `{key}`"):
            from_dict(changed(content, [key], None))


def test_the_summary_fits_a_screen_and_answers(content, result):
    text = render(result)
    assert len(text.splitlines()) <= 24 and all(len(line) <= 80 for line in text.splitlines())
    for words in ("T = 1 ", "T = 0.5 ", "unigram entropy U", "codebook usage", "no floor", "care"):
        assert words in text
    assert "± " not in text.split("care")[0]


@pytest.mark.parametrize(("units", "per_nat"), [("nats", 1), ("bits", 1 / math.log(2))])
def test_the_summary_s_numbers_are_those_of_the_averages(content, result, units, per_nat):
    """Values in the units, shares of ln V in none, and of the final scale its own."""
    *rows, unigram = summary_table(result, units).rows
    log_vocab = math.log(content["tokenizer"]["vocab_size"])
    named = [(at["average"], "assignment_entropy") for at in content["temperatures"]]
    for row, (average, name) in zip(
        [*rows, unigram], [*named, (content["average"], "unigram_entropy")], strict=True
    ):
        of, final = average["token_weighted"][name], average["last_scale"][name]
        value, interval, share, last = row[1:]
        assert float(value.removeprefix("≥ ")) == pytest.approx(per_nat * of["value"], abs=0.006)
        if of["ci95"]:
            expected = [per_nat * end for end in of["ci95"]]
            assert [float(end) for end in interval.split(" to ")] == pytest.approx(expected, abs=0.006)
        assert float(share) == pytest.approx(100 * of["value"] / log_vocab, abs=0.51)
        assert float(last.removeprefix("≥ ")) == pytest.approx(per_nat * final["value"], abs=0.006)


@pytest.mark.parametrize(
    ("half_width", "places"),
    [(None, 2), (0.0, 2), (3.0, 2), (0.02, 2), (0.01, 2), (0.0099, 3), (0.001, 3), (2e-4, 4), (1e-6, 4)],
)
def test_numbers_are_shown_to_the_first_digit_of_their_intervals(half_width, places):
    assert digits(half_width) == places


def test_pooled_usage_of_too_few_images_is_a_bound(content):
    for note, sign in ((UNDERSAMPLED, "≥ "), (None, "")):
        entropy = Estimate(2.0, 2.0, 0.1, None, "plug-in", note)
        pooled = {
            "unigram_entropy": entropy,
            "perplexity": perplexity(entropy),
            "usage": Estimate(0.25, 0.25, 0.01, None, "codes seen", note),
        }
        parts = {name: dataclasses.asdict(estimate) for name, estimate in pooled.items()}
        (line,) = usage(from_dict(changed(content, ["pooled"], parts)))
        assert f"usage {sign}25.0 %, perplexity {sign}7 of 48" in line


def test_only_vars_temperature_is_called_vars(content):
    assert is_var_style(from_dict(content)) and "VAR-style" in render(from_dict(content))
    for place, value in (
        (["settings", "temperature"], 0.5),
        (["settings", "temperature"], "auto"),
        (["tokenizer", "rule"], "cosine"),
        (["tokenizer", "family"], "vqgan"),
    ):
        other = from_dict(changed(content, place, value))
        assert not is_var_style(other) and "VAR-style" not in render(other)


def test_poorly_covered_usage_is_a_bound(content):
    place = ["scales", 0, "usage_estimate"]
    bound = dataclasses.asdict(Estimate(0.25, 0.25, 0.01, None, "codes seen", UNDERSAMPLED))
    text = render(from_dict(changed(content, place, bound)), table=True)
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


def test_a_file_may_be_read_by_whom_the_mask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "file", "for the group")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_file_under_two_names_is_the_same_file(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("file")
    for other in (tmp_path / "link", tmp_path / "x" / ".." / "file"):
        with pytest.raises(ResultError, match=r"--output .*: is the same file as --floor"):
            files.check_different(("--floor", tmp_path / "file"), ("--output", other))
    files.check_different(
        ("--floor", tmp_path / "file"), ("--output", None), ("--output", tmp_path / "y")
    )


@pytest.mark.parametrize("labels, lines", [("hard", 2), ("unknown", 2), ("soft", 1)])
def test_the_summary_says_for_whom_it_is_a_floor(content, labels, lines):
    text = render(from_dict(changed(content, ["tokenizer", "labels"], labels)))
    found = [line for line in text.splitlines() if " labels" in line and "loss" in line]
    assert len(found) == lines and found[0].startswith("soft or sampled labels")
    assert lines == 1 or (found[1].startswith("hard labels") and "A is no floor" in found[1])
    assert ("(var)" in text.split("hard labels")[-1][:7]) == (labels == "hard")


@pytest.mark.parametrize(("key", "most"), [("temperatures", 100), ("scales", 1000), ("checks", 100)])
def test_no_estimate_has_more_than_so_many_of_them(content, key, most):
    with pytest.raises(ResultError, match=rf"{most}.* - at `\$.{key}`"):
        from_dict(changed(content, [key], content[key][:1] * (most + 1)))
