"""What tests of `evaluate` share: tiny models of the tokens of the tiny tokenizers."""

import json

import pytest
import torch
from safetensors.torch import save_file

from entropy_cli.cli import main
from tests.conftest import PATCH_NUMS
from tests.generator_checkpoints import levels, random_weights, var_shapes

CLASSES = 4  # as many as the tiny folder has folders


def model_weights(seed=0, tokens=tuple(n * n for n in PATCH_NUMS), codes=48, classes=CLASSES):
    """A model of the tiny tokenizer's tokens that is not too sure of itself."""
    weights = random_weights(var_shapes(tokens, codes=codes, classes=classes), seed)
    weights["head.weight"] *= 0.5
    return weights


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Such a model, with VAR's buffer of its scales."""
    path = tmp_path_factory.mktemp("model") / "var.safetensors"
    save_file(model_weights() | {"lvl_1L": levels(*PATCH_NUMS)}, path)
    return path


@pytest.fixture(scope="session")
def options(images, checkpoint, model):
    """The inputs of an evaluation of the tiny model on the tiny folder."""
    given = ("--data", images, "--ckpt", checkpoint, "--model", model, "--temperature", "1,0.5")
    return [str(part) for part in (*given, "--batch-size", "4")]


@pytest.fixture
def evaluate(cli):
    """Run `evaluate --json`; gives the result, or the exit code and stderr of a failure."""

    def run(*argv):
        code, out, err = cli("evaluate", "--json", "--workers", "0", *argv)
        return json.loads(out) if code in (0, 4) and out else (code, err)

    return run


@pytest.fixture(scope="session")
def whole(tmp_path_factory, options):
    """The result of an undisturbed run, and the files that it wrote."""
    folder = tmp_path_factory.mktemp("whole")
    files = {name: folder / f"{name}.{suffix}" for name, suffix in FILES.items()}
    argv = ["evaluate", *options, "--workers", "0", "-o", files["result"], "--ladder"]
    argv += ["--save-tokens", files["tokens"], "--per-image", files["nats"]]
    assert main([str(part) for part in argv]) == 0
    return json.loads(files["result"].read_text()), files


FILES = {"result": "json", "tokens": "npy", "nats": "csv"}
LOSSES = (
    *("cross_entropy", "accuracy_top1", "accuracy_top5", "predictive_entropy", "cross_entropy_null"),
    *("as_logged", "reducible", "gain", "target_cross_entropy", "kl", "assignment_entropy"),
    *("unigram_entropy", "perplexity"),
)
AVERAGES = ("token_weighted", "over_scales", "last_scale")


def parts_of(result):
    """Every scale and average of a result, with its name."""
    for scale in result["scales"]:
        yield scale["name"], scale
    for kind in AVERAGES:
        yield kind, result["average"][kind]


def assert_same_losses(one, two, tolerance=1e-9, but=()):
    """Two evaluations agree in every number."""
    assert one["data"]["images_used"] == two["data"]["images_used"]
    assert one["labels"] == two["labels"] if tolerance == 0 else True
    for (name, a), (_, b) in zip(parts_of(one), parts_of(two), strict=True):
        for key in LOSSES:
            for field in ("value", "plug_in", "se") if key not in but else ():
                expected = pytest.approx(b[key][field], abs=tolerance, rel=tolerance)
                assert a[key][field] == expected, (name, key, field)
    for a, b in zip(one["temperatures"], two["temperatures"], strict=True):
        for kind in AVERAGES:
            for key in ("target_cross_entropy", "kl"):
                if key not in but:
                    left, right = a["average"][kind][key], b["average"][kind][key]
                    assert left["value"] == pytest.approx(right["value"], abs=tolerance)
    assert one["total"] == pytest.approx(two["total"], abs=200 * tolerance)
    if one["labels"]["check"] is not None and "cross_entropy_null" not in but:
        a, b = one["labels"]["check"], two["labels"]["check"]
        assert a["images"] == b["images"]
        for field in ("value", "se"):
            assert a["gain"][field] == pytest.approx(b["gain"][field], abs=200 * tolerance)


def zero_head(path):
    """A model whose predictions are all even, at a path."""
    weights = model_weights()
    for name in ("head.weight", "head.bias"):
        weights[name] = torch.zeros_like(weights[name])
    save_file(weights | {"lvl_1L": levels(*PATCH_NUMS)}, path)
    return path
