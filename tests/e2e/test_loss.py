"""The command `loss`: every format, scale and option against plain arithmetic, and every error."""

import json
import math
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.memory import added_memory_kb
from tests.plain_loss import plain_losses

B, L, V = 6, 14, 13
PATCH_NUMS = "1,2,3"
SCALES = (slice(0, 1), slice(1, 5), slice(5, 14))
EXACT = (
    "tokens", "cross_entropy", "accuracy_top1", "accuracy_top5", "predictive_entropy", "perplexity",
    "standard_error",
)  # fmt: skip


@pytest.fixture(scope="module")
def tensors():
    g = torch.Generator().manual_seed(0)
    logits_BLV = torch.randn(B, L, V, generator=g) * 2
    p_NV = logits_BLV.softmax(-1).flatten(0, 1)
    label_BL = torch.multinomial(p_NV, 1, generator=g).view(B, L)
    label_BL[torch.rand(B, L, generator=g) < 0.2] = -100
    target_BLV = (logits_BLV + torch.randn(B, L, V, generator=g)).double().softmax(-1)
    return {"logits": logits_BLV, "labels": label_BL, "targets": target_BLV}


@pytest.fixture
def files(tmp_path, tensors):
    """A .npy file for each."""
    for name, tensor in tensors.items():
        np.save(tmp_path / f"{name}.npy", tensor.numpy())
    return tmp_path


@pytest.fixture
def loss(cli, files):
    """Run `loss --json` with those files, or others; gives the result, or exit code and stderr."""

    def run(*argv, **given):
        given = {"logits": files / "logits.npy", "labels": files / "labels.npy", **given}
        paths = [part for name, path in given.items() if path for part in (f"--{name}", path)]
        code, out, err = cli("loss", *paths, "--json", *argv)
        assert code == 0 or not out
        return json.loads(out) if code == 0 else (code, err)

    return run


def assert_plain(found, plain, names=EXACT, **how):
    for name in names:
        assert found[name] == pytest.approx(plain[name], **(how or {"abs": 1e-9})), name


def saved(path, **given):
    """Tensors in a file of the format of its name."""
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in given.items()}, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in given.items()})
    else:
        torch.save(given, path)
    return path


@pytest.mark.usefixtures("threads")
def test_labels_and_scales_agree_with_plain_arithmetic(loss, tensors):
    found = loss("--patch-nums", PATCH_NUMS)
    logits, labels = tensors["logits"].tolist(), tensors["labels"].tolist()
    assert found["schema"] == "entropy-cli/loss" and found["schema_version"] == 1
    assert found["ignored"] == labels_ignored(labels) and found["target_entropy"] is found["kl"] is None
    assert_plain(found, plain_losses(logits, labels))
    assert [(s["scale"], s["patch_num"]) for s in found["scales"]] == [(0, 1), (1, 2), (2, 3)]
    for scale, where in zip(found["scales"], SCALES, strict=True):
        assert_plain(scale, plain_losses([row[where] for row in logits], [row[where] for row in labels]))
    low, high = found["ci95"]
    t = 2.5705818366147395  # Student's quantile for 5 degrees of freedom
    assert (high - low) / 2 == pytest.approx(t * found["standard_error"], rel=1e-6)
    assert found["cross_entropy_bits"] == pytest.approx(found["cross_entropy"] / math.log(2))


def labels_ignored(labels):
    return sum(label == -100 for row in labels for label in row)


@pytest.mark.parametrize("with_labels", [True, False])
def test_soft_labels_agree_with_plain_arithmetic(loss, files, tensors, with_labels):
    labels = {} if with_labels else {"labels": None}
    found = loss("--patch-nums", PATCH_NUMS, targets=files / "targets.npy", **labels)
    given = {name: tensor.tolist() for name, tensor in tensors.items()}
    plain = plain_losses(given["logits"], given["labels"] if with_labels else None, given["targets"])
    soft = ("target_entropy", "kl", "cross_entropy", "predictive_entropy", "standard_error", "tokens")
    assert_plain(found, plain, soft)
    assert found["cross_entropy"] == pytest.approx(found["target_entropy"] + found["kl"], abs=1e-12)
    assert found["cross_entropy_with"] == "targets"
    if with_labels:
        assert_plain(found, plain, ("label_cross_entropy", "accuracy_top1", "accuracy_top5"))
    else:
        assert found["label_cross_entropy"] is found["accuracy_top1"] is None and not found["ignored"]
    where = SCALES[2]
    last = [
        [row[where] for row in given[n]] if with_labels or n != "labels" else None
        for n in ("logits", "labels", "targets")
    ]
    assert_plain(found["scales"][2], plain_losses(*last), soft)


def test_the_shifted_loss_is_that_of_transformers(loss, tensors):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.loss.loss_utils import ForCausalLMLoss
    found = loss("--shift")
    expected = ForCausalLMLoss(tensors["logits"], tensors["labels"], vocab_size=V).item()
    assert found["cross_entropy"] == pytest.approx(expected, abs=1e-6)
    logits, labels = tensors["logits"][:, :-1].tolist(), tensors["labels"][:, 1:].tolist()
    assert_plain(found, plain_losses(logits, labels))
    assert found["tokens"] + found["ignored"] == B * (L - 1)


def test_shifted_soft_labels_are_shifted_like_labels(loss, files, tensors):
    found = loss("--shift", targets=files / "targets.npy")
    plain = plain_losses(
        tensors["logits"][:, :-1].tolist(),
        tensors["labels"][:, 1:].tolist(),
        tensors["targets"][:, 1:].tolist(),
    )
    assert_plain(found, plain, ("cross_entropy", "target_entropy", "kl", "label_cross_entropy"))


def test_the_known_shifted_loss(loss, files, shared):
    vectors = json.loads((shared / "design/test_vectors.json").read_text())["vectors"]
    vector = next(v for v in vectors if v["id"] == "shift_ignore")
    np.save(files / "p.npy", np.log([vector["input"]["probs"]]))
    np.save(files / "y.npy", np.array([vector["input"]["labels"]]))
    given = {"logits": files / "p.npy", "labels": files / "y.npy"}
    expected = vector["expected"]
    found = loss("--shift", **given)
    assert found["cross_entropy"] == pytest.approx(expected["CE_shifted"], abs=vector["atol"])
    assert (found["tokens"], found["ignored"]) == (expected["n"], 1)
    unshifted = loss(**given)["cross_entropy"]
    assert unshifted == pytest.approx(expected["CE_unshifted"], abs=vector["atol"])


def test_label_smoothing_is_torchs(loss, tensors):
    found = loss("--label-smoothing", 0.1)
    expected = torch.nn.functional.cross_entropy(
        tensors["logits"].double().flatten(0, 1), tensors["labels"].flatten(), label_smoothing=0.1
    ).item()
    assert found["smoothed_cross_entropy"] == pytest.approx(expected, abs=1e-12)
    plain = plain_losses(tensors["logits"].tolist(), tensors["labels"].tolist(), smoothing=0.1)
    assert found["smoothed_floor"] == pytest.approx(plain["smoothed_floor"], abs=1e-12)
    assert found["smoothed_excess"] == pytest.approx(expected - plain["smoothed_floor"], abs=1e-12)
    assert found["cross_entropy"] == pytest.approx(plain["cross_entropy"], abs=1e-12)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_format_and_type(loss, tmp_path, tensors, suffix, dtype):
    if (suffix, dtype) == (".npz", torch.bfloat16):
        pytest.skip("numpy has no bfloat16")
    logits_BLV, label_BL = tensors["logits"].to(dtype), tensors["labels"]
    path = saved(tmp_path / f"dump{suffix}", logits=logits_BLV, labels=label_BL.to(torch.int16))
    expected = plain_losses(logits_BLV.tolist(), label_BL.tolist())
    assert_plain(loss(logits=path, labels=path), expected)  # each the only one of its kind
    assert_plain(loss(logits=f"{path}:logits", labels=f"{path}:labels"), expected)


@pytest.mark.parametrize("dtype", ["i1", "i2", "<i4", ">i8", "u1", "u2", "u4", "u8"])
def test_every_type_of_integers(loss, files, tensors, dtype):
    labels = tensors["labels"].clamp(min=0)
    np.save(files / "y.npy", labels.numpy().astype(dtype))
    plain = plain_losses(tensors["logits"].tolist(), labels.tolist())
    assert_plain(loss(labels=files / "y.npy"), plain)
    some = labels.where(labels != 0, -100)
    plain = plain_losses(tensors["logits"].tolist(), some.tolist())
    assert_plain(loss("--ignore-index", 0, labels=files / "y.npy"), plain)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".pt"])
@pytest.mark.parametrize("label", [2**63, 2**64 - 100, 2**64 - 1])
@pytest.mark.parametrize("options", [(), ("--ignore-index", -1)])
def test_labels_beyond_int64_are_named_and_never_wrapped(loss, files, suffix, label, options):
    y = np.full((B, L), 3, np.uint64)
    y[1, 2] = label
    path = files / f"y{suffix}"
    if suffix == ".npy":
        np.save(path, y)
    else:
        saved(path, y=torch.from_numpy(y))
    code, err = loss(*options, labels=path)
    assert code == 3 and err.count("\n") == 1
    assert f"[1, 2]: label {label}, but" in err and "Save labels below 0 as int64." in err


def npy(shape, numbers=b"", dtype="<f4"):
    """A .npy file with any header."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + numbers


NUMBERS = np.zeros((B, L, V), np.float32).tobytes()
SHAPES = {
    f"(-{B}, {L}, {V})": "its shape is",
    f"(-{B}, -{L}, {V})": "its shape is",
    f"(True, {B * L}, {V})": "its shape is",
    f"({B}.0, {L}, {V})": "shape",
    f"({B - 1}, {L}, {V})": f"takes {(B - 1) * L * V * 4} bytes, but it has {len(NUMBERS)}",
    f"({B + 1}, {L}, {V})": f"takes {(B + 1) * L * V * 4} bytes, but it has {len(NUMBERS)}",
    f"({2**64 + B}, {L}, {V})": "its shape is",
    f"({2**32}, {2**32}, {V})": "its shape is",
    f"({2**31}, {2**31}, 4, 0)": "its shape is",
}


@pytest.mark.parametrize("suffix", [".npy", ".npz", "packed.npz"])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_that_no_array_has(loss, files, shape, suffix):
    path, content = files / f"x{suffix}", npy(shape, NUMBERS)
    if suffix == ".npy":
        path.write_bytes(content)
    else:
        method = zipfile.ZIP_DEFLATED if "packed" in suffix else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("logits.npy", content)
    code, err = loss(logits=path)
    assert code == 3 and err.count("\n") == 1 and f"{path}: a damaged file: " in err
    assert SHAPES[shape] in err


def test_shapes_that_do_not_fit_are_refused_before_anything_is_unpacked(loss, files, monkeypatch):
    np.savez_compressed(files / "x.npz", np.zeros((B, L + 1, V), np.float32))
    monkeypatch.setattr(np.lib.format, "read_array", None)
    code, err = loss(logits=files / "x.npz")
    assert code == 3 and f"expected ({B}, {L + 1})" in err


def test_names_with_numbers_of_any_length(loss, files):
    path = files / "x.npz"
    np.savez(path, **{digit * 5000: np.zeros((B, L, V), np.float32) for digit in "21"})
    code, err = loss(logits=path)
    assert code == 3 and "got 2 tensors of floating-point numbers, 1" in err and len(err) < 2000


def test_flat_tokens_are_the_same_tokens(loss, files, tensors):
    np.save(files / "flat.npy", tensors["logits"].flatten(0, 1).numpy())
    np.save(files / "y.npy", tensors["labels"].flatten().numpy())
    flat = {"logits": files / "flat.npy", "labels": files / "y.npy"}
    whole, scaled = loss("--patch-nums", PATCH_NUMS), loss("--patch-nums", PATCH_NUMS, **flat)
    for result in (whole, scaled):
        del result["settings"], result["provenance"]
    assert whole == scaled
    logits, labels = tensors["logits"].flatten(0, 1)[:, None], tensors["labels"].flatten()[:, None]
    found = loss(**flat)
    assert_plain(found, plain_losses(logits.tolist(), labels.tolist()))
    assert found["standard_error_over"] == "tokens"
    assert [finding["id"] for finding in found["findings"]] == ["independent_tokens"]


def test_transposed_arrays_are_read_as_they_are_meant(loss, files, tensors):
    np.save(files / "f.npy", np.asfortranarray(tensors["logits"].numpy()))
    transposed = tensors["logits"].transpose(1, 2).contiguous().transpose(1, 2)
    path = saved(files / "t.pt", logits=transposed)
    expected = plain_losses(tensors["logits"].tolist(), tensors["labels"].tolist())
    assert_plain(loss(logits=files / "f.npy"), expected)
    assert_plain(loss(logits=path), expected)


@pytest.mark.parametrize(("logits", "tokens", "nbytes"), [(1, 1, 1), (50, 3, 1000), (300, 40, 10)])
def test_the_size_of_the_pieces_changes_nothing(loss, files, monkeypatch, logits, tokens, nbytes):
    options = ("--patch-nums", PATCH_NUMS)
    whole = loss(*options, targets=files / "targets.npy")
    monkeypatch.setattr("entropy_cli.commands.loss.dump.LOGITS_PER_CHUNK", logits)
    monkeypatch.setattr("entropy_cli.commands.loss.dump.LABELS_PER_CHUNK", tokens)
    monkeypatch.setattr("entropy_cli.commands.loss.loss.TOKENS_PER_BLOCK", tokens)
    parts = loss(*options, targets=files / "targets.npy")
    for one, other in zip([whole, *whole["scales"]], [parts, *parts["scales"]], strict=True):
        for name in (*EXACT, "target_entropy", "kl", "label_cross_entropy"):
            assert one[name] == pytest.approx(other[name], abs=1e-12), name


def test_ignored_tokens_are_not_looked_at(loss, files, tensors):
    label_BL = tensors["labels"].clone()
    label_BL[:, 0] = 3
    logits_BLV = tensors["logits"].clone()
    label_BL[1], logits_BLV[1] = 7, torch.nan  # the ignored number is one of a code here
    label_BL[label_BL == -100] = 7
    np.save(files / "y.npy", label_BL.numpy())
    np.save(files / "x.npy", logits_BLV.numpy())
    found = loss("--ignore-index", 7, logits=files / "x.npy", labels=files / "y.npy")
    assert_plain(found, plain_losses(logits_BLV.tolist(), label_BL.tolist(), ignore=7))


def test_a_scale_without_labels_has_no_loss(loss, files, tensors):
    label_BL = tensors["labels"].clone()
    label_BL[:, 0] = -100
    np.save(files / "y.npy", label_BL.numpy())
    scale = loss("--patch-nums", PATCH_NUMS, labels=files / "y.npy")["scales"][0]
    assert (scale["tokens"], scale["ignored"], scale["cross_entropy"], scale["ci95"]) == (
        0,
        B,
        None,
        None,
    )


def test_one_row_has_no_error(loss, files, tensors):
    for name in ("logits", "labels"):
        np.save(files / f"one-{name}.npy", tensors[name][:1].numpy())
    found = loss(logits=files / "one-logits.npy", labels=files / "one-labels.npy")
    assert found["standard_error"] is found["ci95"] is None
    assert [finding["id"] for finding in found["findings"]] == ["no_error"]


WRONG = {
    "float labels": (
        lambda t: {"labels": t["labels"].float()},
        r"holds no tensor of integers; it has labels \(float32\)",
    ),
    "integer logits": (lambda t: {"logits": t["labels"]}, "no tensor of floating-point numbers"),
    "other shape": (
        lambda t: {"labels": t["labels"][:, 1:]},
        r"labels of shape \(6, 13\); expected \(6, 14\)",
    ),
    "one axis": (lambda t: {"logits": t["logits"][0, 0]}, r"expected \(B, L, V\) or \(N, V\)"),
    "empty": (
        lambda t: {"logits": t["logits"][:0], "labels": t["labels"][:0]},
        r"\(0, 14, 13\) are empty",
    ),
    "label too large": (
        lambda t: {"labels": with_value(t["labels"], (1, 2), V)},
        r"labels.npy\[1, 2\]: label 13, but the logits are of 13 codes. Expected 0 to 12",
    ),
    "negative label": (
        lambda t: {"labels": with_value(t["labels"], (2, 0), -1)},
        r"labels.npy\[2, 0\]: label -1",
    ),
    "all ignored": (lambda t: {"labels": torch.full_like(t["labels"], -100)}, "all labels are -100"),
    "NaN": (
        lambda t: {"logits": with_value(t["logits"], (3, 4, 5), math.nan), "labels": full(t)},
        r"logits.npy\[3, 4\]: the logit of code 5 is nan",
    ),
    "infinity": (
        lambda t: {"logits": with_value(t["logits"], (3, 4, 5), math.inf), "labels": full(t)},
        r"logits.npy\[3, 4\]: the logit of code 5 is inf",
    ),
    "all masked": (
        lambda t: {"logits": with_value(t["logits"], (5, 13), -math.inf), "labels": full(t)},
        r"logits.npy\[5, 13\]: all logits are -inf",
    ),
    "masked label": (
        lambda t: {"logits": with_value(t["logits"], (0, 1, 2), -math.inf), "labels": full(t)},
        r"logits.npy\[0, 1\]: the label is code 2, whose logit is -inf",
    ),
    "masked target": (
        lambda t: {**t, "logits": with_value(t["logits"], (0, 1, 3), -math.inf), "labels": full(t)},
        r"logits.npy\[0, 1\]: the logit of code 3 is -inf, but its soft label is",
    ),
    "targets of another sum": (
        lambda t: {**t, "targets": with_value(t["targets"], (4, 3, 2), 0.9), "labels": full(t)},
        r"targets.npy\[4, 3\]: the soft labels sum to",
    ),
    "targets beyond rounding": (
        lambda t: {**t, "targets": t["targets"] * 1.001, "labels": full(t)},
        r"targets.npy\[0, 0\]: the soft labels sum to 1.001.* within 0.0001",
    ),
    "negative targets": (
        lambda t: {**t, "targets": with_value(t["targets"], (4, 3, 2), -0.125), "labels": full(t)},
        r"targets.npy\[4, 3\]: the soft labels hold -0.125",
    ),
    "NaN among targets": (
        lambda t: {**t, "targets": with_value(t["targets"], (4, 3, 2), math.nan), "labels": full(t)},
        r"targets.npy\[4, 3\]: the soft labels hold nan",
    ),
}  # fmt: skip


def with_value(tensor, index, value):
    changed = tensor.clone()
    changed[index] = value
    return changed


def full(tensors):
    return torch.full_like(tensors["labels"], 2)


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_refused_with_the_place(loss, files, tensors, case):
    make, words = WRONG[case]
    made = make(tensors)
    for name, tensor in made.items():
        np.save(files / f"{name}.npy", tensor.numpy())
    targets = {"targets": files / "targets.npy"} if "targets" in made else {}
    code, err = loss(**targets)
    assert code == 3
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(err)
    assert err.startswith("error: ") and err.count("\n") == 1


def test_places_in_flat_and_shifted_files(loss, files, tensors):
    label_BL = with_value(tensors["labels"], (1, 2), 99)
    np.save(files / "y.npy", label_BL.numpy())
    assert "y.npy[1, 2]: label 99" in loss("--shift", labels=files / "y.npy")[1]
    np.save(files / "flat.npy", tensors["logits"].flatten(0, 1).numpy())
    np.save(files / "y.npy", label_BL.flatten().numpy())
    flat = {"logits": files / "flat.npy", "labels": files / "y.npy"}
    for options in ((), ("--patch-nums", PATCH_NUMS)):
        assert f"y.npy[{L + 2}]: label 99" in loss(*options, **flat)[1]
    code, err = loss("--shift", **flat)
    assert code == 3 and "where one sequence ends" in err


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["--shift", "--patch-nums", PATCH_NUMS], 2, "a scale predicts its own tokens"),
        (["--patch-nums", "1,2"], 3, "--patch-nums 1,2 means 5"),
        (["--patch-nums", "1,x"], 2, "a whole number from 1 to 4,096"),
        (["--floor-last", 1], 2, "needs --patch-nums"),
        (["--floor-mean", "nan"], 2, "expected a number from 0"),
        (["--floor", "r.json", "--floor-mean", 1], 2, "Give one of them"),
        (["--floor", "none.json"], 3, "none.json"),
        (["--label-smoothing", 1.5], 2, "label-smoothing"),
        (["--ignore-index", 2**63], 2, "--ignore-index"),
        (["--ignore-index", -(10**30)], 2, "--ignore-index"),
        (["--output", "none/r.json"], 3, "there is no folder"),
    ],
)
def test_wrong_options_are_refused_with_the_reason(loss, argv, code, words):
    found, err = loss(*argv)
    assert found == code and words in err


def test_inputs_that_are_missing_or_would_be_overwritten(loss, cli, files):
    assert loss(labels=None)[0] == 2
    assert loss(labels=files / "none.npy") == (3, f"error: {files / 'none.npy'}: no such file. Give a "
                                                  ".safetensors, .npy, .npz or .pt file.\n")  # fmt: skip
    code, err = loss("--output", files / "logits.npy")
    assert code == 3 and "is the same file" in err
    both = saved(files / "both.npz", a=torch.zeros(2, 2), b=torch.zeros(2, 2))
    code, err = loss(logits=both)
    assert code == 3 and "got 2 tensors of floating-point numbers, a, b; expected one" in err
    code, err = loss(logits=f"{both}:c")
    assert code == 3 and "has no tensor c; it has a, b" in err
    code, err = loss("--label-smoothing", 0.1, targets=files / "targets.npy")
    assert code == 2 and "Smooth --targets before" in err


def test_probabilities_are_noticed(cli, loss, files, tensors):
    np.save(files / "p.npy", tensors["targets"].half().numpy())
    found = loss(logits=files / "p.npy")
    assert found["findings"][0]["id"] == "like_probabilities"
    _, out, err = cli("loss", "--logits", files / "p.npy", "--labels", files / "labels.npy", "--json")
    assert "warning: The logits look like probabilities" in err and json.loads(out)
    assert not any(f["id"] == "like_probabilities" for f in loss()["findings"])


def test_labels_of_other_logits_are_noticed(loss, files, tensors):
    np.save(files / "y.npy", tensors["logits"].argmin(-1).numpy())
    assert loss(labels=files / "y.npy")["findings"][0]["id"] == "above_uniform"


def test_a_floor_is_set_against_its_own_mean(loss, files):
    found = loss("--patch-nums", PATCH_NUMS, "--floor-mean", 0.5, "--floor-last", 0.25)
    assert found["reducible"] == pytest.approx(found["cross_entropy"] - 0.5)
    assert found["reducible_half_width"] == pytest.approx((found["ci95"][1] - found["ci95"][0]) / 2)
    assert [scale["floor"] for scale in found["scales"]] == [None, None, 0.25]
    last = found["scales"][2]
    assert last["reducible"] == pytest.approx(last["cross_entropy"] - 0.25)
    assert [finding["id"] for finding in found["findings"]] == ["hard_labels"]
    for options, severity, words in (
        ({}, "warning", "With hard labels that is possible"),
        ({"targets": files / "targets.npy"}, "warning", "which is impossible"),
    ):
        found = loss("--floor-mean", 50, **options)
        (below,) = [f for f in found["findings"] if f["id"] == "below_floor"]
        assert found["reducible"] < 0 and below["severity"] == severity and words in below["message"]
        assert "within the errors" not in below["message"]
    near = found["cross_entropy"] + found["reducible_half_width"] / 2
    (below,) = [f for f in loss("--floor-mean", near, **options)["findings"] if f["id"] == "below_floor"]
    assert "within the errors" in below["message"]


def test_the_floor_of_an_estimate(loss, cli, files, images, checkpoint):
    result = files / "result.json"
    cli("estimate", "--data", images, "--ckpt", checkpoint, "--workers", 0, "-o", result)
    floors = json.loads(result.read_text())
    g = torch.Generator().manual_seed(1)
    np.save(files / "x.npy", torch.randn(4, 85, 48, generator=g).numpy() * 4)
    np.save(files / "y.npy", torch.randint(48, (4, 85), generator=g).numpy())
    given = {"logits": files / "x.npy", "labels": files / "y.npy"}
    found = loss("--floor", result, "--patch-nums", "1,2,4,8", **given)
    pairs = [(found, floors["average"]["token_weighted"])]
    pairs += zip(found["scales"], floors["scales"], strict=True)
    for ours, theirs in pairs:
        assert ours["floor"] == theirs["assignment_entropy"]["value"]
        unigram = theirs["unigram_entropy"]
        assert ours["unigram_entropy"] == (None if unigram["note"] else unigram["value"])
        assert ours["reducible"] == ours["cross_entropy"] - ours["floor"]
        halves = [(high - low) / 2 for low, high in (ours["ci95"], theirs["assignment_entropy"]["ci95"])]
        assert min(halves) > 1e-3
        assert ours["reducible_half_width"] == pytest.approx(math.hypot(*halves))
    ids = [finding["id"] for finding in found["findings"]]
    assert ids == ["above_uniform", "above_unigram", "hard_labels"]
    np.save(files / "more.npy", np.pad(np.load(files / "x.npy"), ((0, 0), (0, 0), (0, 2))))
    more = loss("--floor", result, "--patch-nums", "1,2,4,8", **given | {"logits": files / "more.npy"})
    (other,) = [finding["message"] for finding in more["findings"] if finding["id"] == "vocabulary"]
    assert "The logits have 50 codes, the floor 48" in other
    found = loss("--floor", result, **given)
    assert "no_scales" in [finding["id"] for finding in found["findings"]]
    code, err = loss("--floor", result, "--patch-nums", PATCH_NUMS)
    assert code == 3 and "floors of scales 1,2,4,8, but --patch-nums has 1,2,3" in err


def to_two_digits_of_the_error(found, name, unit):
    error = (found["ci95"][1] - found["ci95"][0]) / 2 / unit  # a floor that is given has none
    digits = 1 - math.floor(math.log10(error))
    return f"{found[name] / unit:.{digits}f} ± {error:.{digits}f}"


def test_with_hard_labels_nothing_is_called_reducible(cli, files):
    argv = ["loss", "--logits", files / "logits.npy", "--labels", files / "labels.npy"]
    for floor in (0.5, 50):
        _, out, _ = cli(*argv, "--floor-mean", floor)
        assert "CE - A (may be negative)" in out and "reducible" not in out


def test_the_table_is_the_result_in_the_units_asked_for(cli, files):
    argv = ["loss", "--logits", files / "logits.npy", "--labels", files / "labels.npy"]
    argv += ["--targets", files / "targets.npy", "--patch-nums", PATCH_NUMS, "--floor-mean", 50]
    for units, unit in (("nats", 1), ("bits", math.log(2))):
        output = files / f"{units}.json"
        code, out, _ = cli(*argv, "--units", units, "-o", output)
        found = json.loads(output.read_text())
        assert code == 0 and max(map(len, out.splitlines())) <= 80
        (row,) = [line for line in out.splitlines() if line.startswith("all tokens") and "%" in line]
        assert f"  {to_two_digits_of_the_error(found, 'cross_entropy', unit)}  " in row
        assert f"{100 * found['accuracy_top1']:.2f} %" in row
        _, every, _ = cli(*argv, "--units", units, "--table")
        assert max(map(len, every.splitlines())) <= 80
        for name in ("accuracy_top5", "predictive_entropy", "label_cross_entropy"):
            number = 100 * found[name] if "accuracy" in name else found[name] / unit
            assert f"{number:.{2 if 'accuracy' in name else 4}f}" in every
        assert "hard labels" in out.partition("With --table: ")[2].partition(".")[0]
        assert "With --table" not in every
        assert to_two_digits_of_the_error(found, "reducible", unit) in row
        assert out.startswith(f"{units} per token; ±: half-width of the 95 % interval over 6")
        assert "1. Warning: The cross-entropy is below the floor" in out


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_a_large_file_needs_little_memory(tmp_path, suffix):
    """800 MB of logits, all zero, of which nothing is written and half is read."""
    rows, length, codes = 40, 150, 2**15
    path = tmp_path / f"logits{suffix}"
    size = rows * length * codes * 4
    with path.open("wb") as file:
        if suffix == ".npy":
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows, length, codes)}
            np.lib.format.write_array_header_1_0(file, header)
        else:
            shape = [rows, length, codes]
            text = json.dumps({"z": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}})
            file.write(struct.pack("<Q", len(text)) + text.encode())
        try:
            file.truncate(file.tell() + size)
        except OSError:
            pytest.skip("the file system has no sparse files of this size")
    label_BL = np.full((rows, length), -100)
    label_BL[:, ::2] = 5
    np.save(tmp_path / "labels.npy", label_BL)
    argv = ["loss", "--logits", path, "--labels", tmp_path / "labels.npy", "-o", tmp_path / "r.json"]
    assert added_memory_kb(tmp_path, "loss", *argv) < 150_000
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["tokens"] == rows * length // 2
    assert found["cross_entropy"] == pytest.approx(math.log(codes), abs=1e-9)
