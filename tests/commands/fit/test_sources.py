"""Points of a scaling law from results of `evaluate`."""

import dataclasses
import json

import pytest

from entropy_cli.cli import main
from entropy_cli.results.schema import read_result
from tests.evaluations import MODEL, evaluation_of

pytest.importorskip("scipy")
PUBLIC = (310_283_520, 600_920_000, 1_033_000_000, 2_010_000_000)  # VAR's four


@pytest.fixture(scope="module")
def estimated(tmp_path_factory, images, checkpoint):
    path = tmp_path_factory.mktemp("estimated") / "result.json"
    argv = ["estimate", "--data", images, "--ckpt", checkpoint, "-o", path, "--temperature", 1]
    assert main([str(part) for part in [*argv, "--limit", 40, "--workers", "0"]]) == 0
    return read_result(path)


@pytest.fixture
def write(estimated, tmp_path):
    """Write the evaluation of a model of this size."""

    def one(size, loss=None, **changes):
        unigram = estimated.average.token_weighted.unigram_entropy.known
        below = 0.4 if loss is None else unigram - loss
        model = dataclasses.replace(MODEL, parameters=size)
        evaluation = evaluation_of(dataclasses.replace(estimated, **changes), below=below, model=model)
        path = tmp_path / f"{size}.json"
        evaluation.write(path)
        return path, evaluation

    return one


def test_vars_public_sizes_are_refused_with_what_would_be_needed(cli, write):
    paths = [write(size, 2 + (4e8 / size) ** 0.3)[0] for size in PUBLIC]
    code, out, _ = cli("fit", *paths, "--json")
    found = json.loads(out)
    assert code == 0 and found["verdict"] == "refused" and found["parameters"] is None
    assert "span a factor of 6.48" in found["reason"] and "at least 10" in found["reason"]
    assert found["columns"] == {"size": "parameters", "loss": "cross_entropy (token_weighted)"}
    assert found["provenance"]["table"] == ", ".join(map(str, paths))


def test_results_are_fitted_as_the_same_points_of_a_table(cli, write, tmp_path):
    sizes = [2e7 * 2**i for i in range(8)]
    found = [write(int(size), 2.2 + (4e8 / size) ** 0.3 / 3) for size in sizes]
    for average in ("token_weighted", "last_scale"):
        rows = [
            f"{one.model.parameters},{getattr(one.average, average).cross_entropy.value!r}"
            for _, one in found
        ]
        table = tmp_path / "models.csv"
        table.write_text("\n".join(["params,loss", *rows]) + "\n")
        given = [] if average == "token_weighted" else ["--loss", average]
        of_results, of_table = (
            json.loads(cli("fit", *argv, "--json")[1])
            for argv in ([*(path for path, _ in found), *given], [table])
        )
        for key in ("form", "points", "parameters", "ci95", "objective", "verdict", "reason"):
            assert of_results[key] == of_table[key], key


def test_points_that_do_not_belong_together(cli, write, estimated, tmp_path):
    def refused(*argv):
        code, _, err = cli("fit", *argv)
        assert code == 3
        return err

    first, _ = write(int(1e8))
    tokenizer = dataclasses.replace(estimated.tokenizer, checkpoint_sha256="f" * 64)
    other, _ = write(int(2e8), tokenizer=tokenizer)
    assert f"{other}: not comparable with {first}: another tokenizer" in refused(first, other)
    unknown, _ = write(None)
    assert "parameters is not known" in refused(first, unknown)
    table = tmp_path / "models.csv"
    table.write_text("params,loss\n1e8,3\n")
    assert "got 1 table and 1 result, expected" in refused(table, first)
    assert "got 2 tables, expected" in refused(table, table)
    for option in (["--size", "x"], ["--data-size", "x"], ["--form", "chinchilla"]):
        assert f"{option[0]}" in refused(first, *option)
    assert "--loss x: expected one of token_weighted" in refused(first, "--loss", "x")
    assert "no such file" in refused(tmp_path / "no.json").lower()
    estimate = tmp_path / "estimate.json"
    estimated.write(estimate)
    assert "not a result of entropy-cli evaluate" in refused(estimate)
    data = dataclasses.replace(estimated.data, images_fingerprint="other")
    elsewhere, _ = write(int(4e8), data=data)
    code, out, _ = cli("fit", first, elsewhere)
    assert code == 0 and f"Of other images than {first}" in " ".join(out.split())
