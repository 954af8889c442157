"""The command `inspect` on golden, broken and unknown checkpoints."""

import hashlib
import json
import math
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.registry import FAMILIES
from tests.published import decoder_weights
from tests.tokenizers.test_titok_encoder import published_shapes, random_weights

GOLDEN = {
    "var_l2": ("var", "l2", 1.0, 6),
    "var_cosine": ("var", "l2", 1.0, 6),  # its rule does not show in the weights
    "vqgan": ("vqgan", "l2", 1.0, 1),
    "vqgan_gumbel": ("vqgan", "logits", 1.0, 1),
    "llamagen": ("llamagen", "cosine", 0.01, 1),
    "ibq": ("ibq", "dot", 0.01, 1),
    "open_magvit2": ("open-magvit2", "sign", 0.01, 1),
    "rq_vae": ("rq-vae", "l2", 0.5, 4),
}
# Options that some need: their scales, or which of two families they are.
SCALES = ("--image-size", 128, "--patch-nums", "1,2,3,4,6,8")
OPTIONS = {"var_l2": SCALES, "var_cosine": SCALES, "ibq": ("--family", "ibq")}
CODES = "quantize.embedding.weight"
DECODER = "decoder.conv_in.weight"


@pytest.fixture
def inspect(cli):
    """Run `inspect --json`, strictly parsed; gives exit code, report and stderr."""

    def run(*argv):
        def refuse(constant):
            raise AssertionError(constant)

        code, out, err = cli("inspect", "--json", *argv)
        return code, json.loads(out, parse_constant=refuse) if out else None, err

    return run


@pytest.fixture
def saved(tmp_path, checkpoint, weights):
    """Save the tiny tokenizer with changes, its decoder and config.json; gives the file."""

    def save(changes=(), name="tiny.safetensors"):
        shutil.copy(checkpoint.with_name("config.json"), tmp_path)
        decoder = decoder_weights(32, (1, 1, 2), 1, 6)
        changed = {**weights, **{k: v.clone() for k, v in decoder.items()}, **dict(changes)}
        changed = {k: v for k, v in changed.items() if v is not None}
        (save_file if name.endswith("safetensors") else torch.save)(changed, tmp_path / name)
        return tmp_path / name

    return save


def part(report, name):
    (found,) = [part for part in report["parts"] if part["name"] == name]
    return found


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_checkpoints(inspect, cli, shared, name):
    (path,) = (shared / "golden" / name).glob("ckpt.*")
    expected = json.loads((shared / "golden" / name / "expected.json").read_text())
    family, rule, temperature, scales = GOLDEN[name]
    code, report, err = inspect(path, "--full", *OPTIONS.get(name, ()))
    assert (code, err, report["family"], report["problem"]) == (0, "", family, None)
    tokenizer = report["tokenizer"]
    assert (tokenizer["rule"], tokenizer["temperature"]) == (rule, temperature)
    assert tokenizer["temperature_source"] and tokenizer["vocab_size"] == expected["vocab_size"]
    assert len(tokenizer["scales"]) == scales
    assert tokenizer["tokens"] == sum(scale["tokens"] for scale in tokenizer["scales"])
    assert report["why"] and set(report["against"]) == set(FAMILIES) - {family}
    settled = {
        other: why for other, why in report["against"].items() if name != "ibq" or other != "vqgan"
    }
    assert all(settled.values()) and not report["doubts"] and not report["candidates"]
    assert report["weights_checked"]
    assert report["file"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report["file"]["weights"] == ("ema" if name == "open_magvit2" else "raw")
    assert report["encoder"]["downsampling"] in (8, 16)
    assert all(part["nan"] == part["infinite"] == 0 for part in report["parts"])
    for codebook in report["codebooks"]:
        assert codebook["statistics"]["codes"] == expected["vocab_size"]
        assert codebook["statistics"]["non_finite"] == 0
    assert len(report["codebooks"]) == {"open_magvit2": 0, "rq_vae": 4}.get(name, 1)
    code, out, _ = cli("inspect", path, *OPTIONS.get(name, ()))
    assert code == 0 and max(map(len, out.splitlines())) <= 80 and out.count("\n") <= 24
    assert f"\nfamily       {family}\n" in out and "usable       yes" in out
    code, out, _ = cli("inspect", path, *OPTIONS.get(name, ()), "--table")
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    assert "not titok" in out and "for tokens" in out and "published    " in out


def test_titok(inspect, tmp_path):
    save_file(random_weights(published_shapes()), tmp_path / "titok.safetensors")
    code, report, _ = inspect(tmp_path / "titok.safetensors", "--full")
    assert (code, report["family"], report["tokenizer"]["tokens"]) == (0, "titok", 6)
    assert report["encoder"] == {
        "kind": "transformer",
        "widths": [128],
        "blocks": [3],
        "attention": [True],
        "middle_blocks": 0,
        "middle_attention": False,
        "downsampling": 4,
    }


def test_the_tiny_tokenizer_and_where_its_sizes_are_from(inspect, cli, checkpoint, weights):
    code, report, _ = inspect(checkpoint)
    assert code == 0 and report["schema"] == "entropy-cli/inspect" and report["schema_version"] == 1
    assert [scale["patch_num"] for scale in report["tokenizer"]["scales"]] == [1, 2, 4, 8]
    assert report["tokenizer"]["config"] == ["image_size", "patch_nums"]
    encoder = report["encoder"]
    assert (encoder["widths"], encoder["blocks"]) == ([32, 32, 64], [1, 1, 1])
    assert (encoder["attention"], encoder["middle_blocks"]) == ([False, False, True], 2)
    assert sum(part["tensors"] for part in report["parts"]) == len(weights)
    assert sum(part["numbers"] for part in report["parts"]) == sum(w.numel() for w in weights.values())
    assert report["file"]["formats"] == ["safetensors"] and report["file"]["copies"] == ["raw"]
    code, report, _ = inspect(checkpoint, "--patch-nums", "1,16", "--image-size", 64)
    assert code == 0 and report["tokenizer"]["tokens"] == 257 and not report["tokenizer"]["config"]
    code, out, _ = cli("inspect", checkpoint.parent)
    assert code == 0 and "files        tiny.safetensors" in out


def test_an_unknown_file_is_reported_before_the_error(inspect, cli, tmp_path):
    path = tmp_path / "x.pth"
    content = {"enc.0.weight": torch.ones(4, 3), "quantizer.codebook.weight": torch.eye(5, 7)}
    torch.save({"net": content, "lr": 1}, path)
    code, report, err = inspect(path)
    assert code == 3 and err.startswith("error: ") and err.count("\n") == 1
    assert report["family"] is None and report["tokenizer"] is None and report["problem"] in err
    assert report["candidates"] == [] and all(report["against"].values())  # nothing is near
    (codebook,) = report["codebooks"]
    assert codebook["tensor"] == "quantizer.codebook.weight"
    assert codebook["statistics"]["zero"] == 0 and codebook["statistics"]["codes"] == 5
    assert part(report, "other")["numbers"] == 12
    code, out, err = cli("inspect", path)
    assert code == 3 and "looks like a tokenizer of another family" in err
    assert "; the nearest" not in out and "found under net" in out


def test_a_batched_codebook_of_an_unknown_file(inspect, tmp_path):
    content = {
        "vq._codebook.embed": torch.eye(5, 7)[None],
        "vq._codebook.embed_avg": torch.ones(1, 5, 7),
    }
    torch.save(content, tmp_path / "vq.pt")
    _, report, _ = inspect(tmp_path / "vq.pt")
    (codebook,) = report["codebooks"]
    assert codebook["tensor"] == "vq._codebook.embed"
    assert codebook["statistics"]["codes"] == 5 and codebook["statistics"]["duplicates"] == 0


def test_several_families_and_a_forced_one(inspect, cli, saved):
    both = saved({name: torch.zeros(1) for name in FAMILIES["titok"].REQUIRED[:3]})
    code, report, err = inspect(both)
    assert code == 3 and report["family"] is None and report["candidates"] == ["var", "titok"]
    assert "--family" in err and "ambiguous: fits var and titok" in cli("inspect", both)[1]
    code, report, _ = inspect(both, "--family", "var")
    assert (code, report["family"], report["against"]["titok"]) == (3, "var", [])
    assert "got encoder." in report["problem"]
    assert report["why"][0] == "set by --family"
    # What estimate would refuse is an error here too, with the reasons against the choice.
    alone = saved()
    alone.with_name("config.json").unlink()
    code, report, err = inspect(alone, "--family", "vqgan")
    assert code == 3 and report["family"] == "vqgan" and "qresi" in report["doubts"][0]
    assert "quantize.quant_resi" in err
    code, report, err = inspect(alone, "--family", "llamagen")
    assert code == 3 and report["family"] is None and report["candidates"] == ["var"]


def test_settings_that_do_not_fit_leave_the_rest_of_the_report(inspect, saved):
    code, report, err = inspect(saved(), "--image-size", 20, "--patch-nums", "1,2")
    assert code == 3 and "--patch-nums" in err
    assert report["family"] == "var" and report["tokenizer"] is None
    assert report["encoder"]["downsampling"] == 4 and report["codebooks"][0]["statistics"]


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_only_full_reads_what_makes_no_tokens(inspect, cli, saved, name):
    bad = torch.zeros(64, 6, 3, 3)
    bad[3, 1, 2, 0], bad[0, 0, 0, 0], bad[1, 1, 1, 1] = math.nan, -math.inf, -70.0
    path = saved({DECODER: bad}, name)
    code, report, _ = inspect(path)
    assert code == 0 and report["file"]["sha256"] is None and not report["weights_checked"]
    assert part(report, "decoder")["nan"] is None
    code, report, _ = inspect(path, "--full")
    decoder = part(report, "decoder")
    assert code == 0 and report["weights_checked"]  # tokens do not depend on it
    assert (decoder["nan"], decoder["infinite"], decoder["bad"]) == (1, 1, [DECODER])
    assert decoder["largest"] == 70.0 and not decoder["unread"]
    assert part(report, "encoder")["nan"] == 0
    assert f"NaN, infinite  in {DECODER}\n" in cli("inspect", path, "--full")[1]


def test_bytes_of_a_part_are_those_of_its_types(inspect, saved, weights):
    path = saved({"encoder.conv_in.weight": weights["encoder.conv_in.weight"].half()})
    encoder = part(inspect(path)[1], "encoder")
    halves = weights["encoder.conv_in.weight"].numel()
    assert encoder["bytes"] == 4 * encoder["numbers"] - 2 * halves


def test_full_finds_what_estimate_would_refuse(inspect, saved, weights):
    broken = weights["encoder.conv_in.weight"].clone()
    broken[0, 0, 0, 0] = math.nan
    path = saved({"encoder.conv_in.weight": broken})
    assert inspect(path)[0] == 0
    code, report, err = inspect(path, "--full")
    assert code == 3 and "encoder.conv_in.weight" in err and not report["weights_checked"]
    for missing in ("encoder.conv_in.bias", "encoder.norm_out.weight"):  # by its absence alone
        code, report, err = inspect(saved({missing: None}))
        assert code == 3 and missing in report["problem"]


def test_planted_codes_are_counted_exactly(inspect, saved, weights):
    codes = weights[CODES].clone()
    codes[[3, 9, 20]], codes[[4, 5]], codes[11] = codes[3].clone(), 0.0, codes[40].clone()
    counts = torch.rand(4, len(codes)) + 0.5
    counts[:, [1, 2, 6]], counts[:, 8], counts[0, 10] = 0.0, 1e-6, 0.0
    code, report, _ = inspect(saved({CODES: codes, "quantize.ema_vocab_hit_SV": counts}))
    assert code == 0
    (codebook,) = report["codebooks"]
    rows = codes.tolist()
    found = codebook["statistics"]
    assert found["duplicates"] == sum(rows.count(row) > 1 for row in rows) == 7
    assert found["zero"] == sum(not any(row) for row in rows) == 2
    assert found["norm"]["max"] == pytest.approx(max(math.hypot(*row) for row in rows))
    distances = [min(math.dist(a, b) for j, b in enumerate(rows) if i != j) for i, a in enumerate(rows)]
    assert found["nearest"]["max"] == pytest.approx(max(distances), rel=1e-4)
    assert found["nearest"]["min"] == 0
    assert [(c["scale"], c["never"], c["rare"]) for c in codebook["counts"]] == [
        (None, 3, 1), (0, 4, 1), (1, 3, 1), (2, 3, 1), (3, 3, 1),
    ]  # fmt: skip


def test_nan_in_the_codebook(inspect, cli, saved, weights):
    codes = weights[CODES].clone()
    codes[7, 2], codes[9, 0] = math.nan, math.inf
    path = saved({CODES: codes})
    code, report, err = inspect(path)
    assert code == 3 and CODES in err  # as estimate would
    found = report["codebooks"][0]["statistics"]
    assert found["non_finite"] == 2 and found["codes"] == 48 and found["mean"] is not None
    head, values = cli("inspect", path)[1].splitlines()[-3::2]
    assert dict(zip(head.split("  ")[-1:], values.split()[-1:], strict=True)) == {"NaN": "2"}
    code, report, _ = inspect(saved({CODES: torch.full((48, 6), math.nan)}))
    assert code == 3 and report["codebooks"][0]["statistics"]["mean"] is None


def test_usage_of_other_families(inspect, shared, tmp_path):
    content = torch.load(shared / "golden/rq_vae/ckpt.pth", weights_only=True)  # noqa: TID251
    weights = content["state_dict"]
    counts = torch.ones(256)
    counts[:5] = 0
    weights["quantizer.codebooks.2.cluster_size_ema"] = counts
    torch.save(content, tmp_path / "rq.pth")
    _, report, _ = inspect(tmp_path / "rq.pth")
    assert [codebook["padding"] for codebook in report["codebooks"]] == [1] * 4
    assert report["codebooks"][2]["counts"][0]["never"] == 5
    assert report["codebooks"][1]["counts"][0]["never"] is None
    content = torch.load(shared / "golden/llamagen/ckpt.pth", weights_only=True)  # noqa: TID251
    codes = len(content["model"][CODES])
    content["model"]["quantize.codebook_used"] = torch.arange(65536.0) % (codes - 3)
    torch.save(content, tmp_path / "llamagen.pth")
    code, report, _ = inspect(tmp_path / "llamagen.pth")
    assert code == 0 and report["codebooks"][0]["counts"][0]["never"] == 3


def test_copies(inspect, cli, weights, tmp_path, checkpoint):
    shutil.copy(checkpoint.with_name("config.json"), tmp_path)
    averaged = {name: weight * 0.5 for name, weight in weights.items()}
    path = tmp_path / "both.pth"
    torch.save({"trainer": {"vae_local": weights, "vae_ema": averaged}, "epoch": 3}, path)
    for argv, copy, factor in (((), "ema", 0.5), (("--weights", "raw"), "raw", 1)):
        code, report, _ = inspect(path, *argv)
        file = report["file"]
        assert (code, file["copies"], file["weights"]) == (0, ["raw", "ema"], copy)
        assert file["weights_why"] and file["ignored"] == ["epoch"]
        norm = report["codebooks"][0]["statistics"]["norm"]["max"]
        assert norm == pytest.approx(factor * weights[CODES].norm(dim=1).max().item())
    assert "ema is used: set by --weights" in cli("inspect", path, "--weights", "ema")[1]
    code, _, err = inspect(checkpoint, "--weights", "ema")
    assert code == 3 and "holds no EMA copy" in err


@pytest.mark.parametrize("name", ["var_l2", "vqgan", "vqgan_gumbel", "rq_vae", "open_magvit2"])
def test_only_codes_and_what_belongs_to_them_are_read(inspect, shared, monkeypatch, name):
    (path,) = (shared / "golden" / name).glob("ckpt.*")
    read, real = set(), Checkpoint._read

    def counting(self, name, *args):
        tensor = real(self, name, *args)
        if not tensor.is_meta:
            read.add(name)
        return tensor

    monkeypatch.setattr(Checkpoint, "_read", counting)
    assert inspect(path, *OPTIONS.get(name, ()))[0] == 0
    assert all(name.startswith(("quantize.", "quantizer.")) for name in read)
    assert sum("." in name and name.endswith("weight") for name in read) <= 4


def test_bytes_that_no_report_needs_may_be_anything(inspect, saved):
    path = saved()
    raw = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    begin, end = header[CODES]["data_offsets"]
    raw[start : start + begin] = b"\xff" * begin
    raw[start + end :] = b"\xff" * (len(raw) - start - end)
    path.write_bytes(raw)
    code, report, _ = inspect(path)
    assert code == 0 and report["codebooks"][0]["statistics"]["non_finite"] == 0
    assert inspect(path, "--full")[0] == 3


def test_what_is_no_checkpoint_or_no_family(inspect, tmp_path):
    (tmp_path / "x.pt").write_bytes(b"nothing")
    for path in (tmp_path / "x.pt", tmp_path / "none.pt"):
        code, report, err = inspect(path)
        assert code == 3 and report is None and err.count("\n") == 1
    code, _, err = inspect(tmp_path / "x.pt", "--family", "nope")
    assert code == 2 and "open-magvit2" in err


def test_every_family_has_identifying_keys():
    for family in FAMILIES.values():
        assert family.IDENTIFYING_KEYS and all(family.IDENTIFYING_KEYS.values())


def test_a_vqgan_that_lists_its_used_codes(inspect, shared, tmp_path):
    content = torch.load(shared / "golden/vqgan_gumbel/ckpt.pth", weights_only=True)  # noqa: TID251
    for used, code in (([1, 5, 9], 0), ([1, 1], 3)):
        content["state_dict"]["quantize.used"] = torch.tensor(used)
        torch.save(content, tmp_path / "used.pth")
        got, report, _ = inspect(tmp_path / "used.pth")
        assert got == code and report["tokenizer"]["vocab_size"] == len(used)


def test_nothing_slow_is_imported(checkpoint):
    """Seconds go by while torchvision, or torch's compiler behind the device meta, is imported."""
    code = (
        "import sys; from entropy_cli.cli import main; code = main(['inspect', sys.argv[1]]);"
        "assert not {'torchvision', 'torch._dynamo', 'sympy'} & sys.modules.keys(); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, checkpoint], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
