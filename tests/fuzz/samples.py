"""A sample of each format that is read, with the command lines that read it."""

import dataclasses
import io
import json
import tarfile
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from entropy_cli.cli import main
from entropy_cli.images.synthetic import write_image_folder
from entropy_cli.results.evaluation import Extremes, ImageLoss
from entropy_cli.results.evaluations.checks import with_checks
from entropy_cli.results.schema import read_result
from entropy_cli.tokenizers.layers.var_layout import VARSizes
from entropy_cli.tokenizers.settings import TokenizerSettings
from tests import training_logs as logs
from tests.evaluations import evaluation_of
from tests.trainings import SMALL
from tests.untrained import untrained_weights

SIZES = VARSizes(width=32, width_mult=(1, 1), blocks=1, latent_dim=4, vocab_size=24)
CONFIG = {"image_size": 16, "patch_nums": [1, 2, 8]}
FEW = "--limit 3 --workers 0 --device cpu --temperature 1"


@dataclass(frozen=True)
class Sample:
    """Files that are changed, by name, and commands; {d} is their folder, {f} that of sound files."""

    name: str
    files: dict[str, bytes]
    commands: tuple[str, ...]

    def argv(self, command, d, f):
        return [word.format(d=d, f=f) for word in command.split()]


def sound_files(folder):
    """Write the sound files that commands take beside the changed one."""
    write_image_folder(folder / "images", images=70, size=16, seed=1)
    pictures = torch.stack([torch.from_numpy(np.array(Image.open(p))) for p in image_paths(folder)])
    weights = untrained_weights(pictures.permute(0, 3, 1, 2), SIZES, TokenizerSettings(16, (1, 2, 8)), 0)
    save_file(weights, folder / "m.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    generator = np.random.default_rng(0)
    np.save(folder / "g.npy", generator.normal(size=(6, 5, 24)).astype("f4"))
    np.save(folder / "y.npy", generator.integers(0, 24, (6, 5)))
    np.save(folder / "z.npy", generator.normal(size=(36, 4, 2, 2)).astype("f4"))
    np.save(folder / "c.npy", weights["quantize.embedding.weight"].numpy())
    (folder / "log").write_text(logs.var_stdout())
    (folder / "p.csv").write_text(points())
    estimate = f"estimate --data {folder}/images --ckpt {folder}/m.safetensors --workers 0 --device cpu"
    tokens = f"--ladder --save-tokens {folder}/k.npy"
    run(f"{estimate} -o {folder}/r.json --temperature 1,auto {tokens}")
    shape = *np.load(folder / "k.npy").shape, 24
    np.save(folder / "kg.npy", generator.normal(size=shape).astype("f4"))
    scales = "--patch-nums 1,2,8"
    run(f"loss --logits {folder}/kg.npy --labels {folder}/k.npy {scales} -o {folder}/loss.json")
    for i in (0, 1):
        run(f"{estimate} --shard {i}/2 --state {folder}/s{i} --temperature 1")
    run(f"train --data {folder}/images --output {folder}/t --steps 1 {' '.join(SMALL)}")


def evaluation(folder):
    """An evaluation made by hand on the estimate, with the losses of two images."""
    found = with_checks(evaluation_of(read_result(folder / "r.json")))
    first, last = (str(image_paths(folder)[i].relative_to(folder / "images")) for i in (0, -1))
    ends = Extremes([ImageLoss(first, 3, 99.5)], [ImageLoss(last, 999, 11.25)])
    found = dataclasses.replace(found, extremes=ends)
    found.write(folder / "e.json")
    return found


def image_paths(folder):
    return sorted((folder / "images").rglob("*.jpg"))


def run(command):
    assert main(command.split()) == 0, command


def points():
    sizes = [3e6 * 2**i for i in range(7)]
    return "params,tokens,loss\n" + "".join(f"{n:.0f},1e9,{2 + (4e6 / n) ** 0.3:.4f}\n" for n in sizes)


def of(save, *args, **options):
    """What a function writes to a file."""
    file = io.BytesIO()
    save(*args, file, **options)
    return file.getvalue()


def torch_bytes(value, *, zipped=True):
    return of(lambda file: torch.save(value, file, _use_new_zipfile_serialization=zipped))


def tar_bytes(folder, form):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for i, path in enumerate(image_paths(folder)[:3]):
            tar.add(path, f"val/{'long/' * 30 * (i == 1)}{i}é.jpg")
        link = tarfile.TarInfo("val/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "0é.jpg"
        tar.addfile(link)
    return file.getvalue()


def log_samples():
    texts = {
        **{name: getattr(logs, name)() for name in ("var_stdout", "var_log_txt", "llamagen", "nanogpt")},
        **{name: getattr(logs, name)() for name in ("build_nanogpt", "modded_nanogpt", "jepa_stdout")},
        **{name: getattr(logs, name)() for name in ("vjepa_csv", "vjepa2_csv", "trainer_state")},
        **{name: getattr(logs, name)() for name in ("lightning", "wandb", "json_lines", "keras_json")},
        "ijepa_csv": logs.ijepa_csv((0.5, 0.4, 0.3), per_epoch=2),
        "plain_csv": logs.plain_csv().replace("objective", "loss"),
    }
    read = "monitor {d}/log --json"
    commands = (read, f"{read} --floor {{f}}/r.json", "monitor {d}/log", "monitor {d}/log -o {d}/o.html")
    return [Sample(name, {"log": text.encode()}, commands) for name, text in texts.items()]


def event_samples(folder):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "events")) as writer:
        for step in range(6):
            writer.add_scalar("AR_iter_loss/L_mean", 8.3 - step, step)
    (path,) = (folder / "events").iterdir()
    return [Sample("events", {"e.tfevents.1": path.read_bytes()}, ("monitor {d}/e.tfevents.1 --json",))]


def array_samples(folder):
    logits, labels = np.load(folder / "g.npy"), np.load(folder / "y.npy")
    loss = "loss --json --logits {d}/g --labels {f}/y.npy"
    latents = f"estimate --json --latents {{d}}/z --codebook {{f}}/c.npy {FEW}"
    kinds = {
        "npy": lambda a: of(lambda file: np.save(file, a)),
        "npz": lambda a: of(lambda file: np.savez(file, a=a)),
        "packed npz": lambda a: of(lambda file: np.savez_compressed(file, a=a)),
        "pt": lambda a: torch_bytes({"a": torch.from_numpy(a)}),
        "old pt": lambda a: torch_bytes(torch.from_numpy(a), zipped=False),
    }
    for name, make in kinds.items():
        yield Sample(f"{name} of logits", {"g": make(logits)}, (loss,))
        yield Sample(f"{name} of latents", {"z": make(np.load(folder / "z.npy"))}, (latents,))
    codes = np.load(folder / "c.npy")
    codebook = f"estimate --json --latents {{f}}/z.npy --codebook {{d}}/c {FEW}"
    yield Sample("codebook", {"c": kinds["npy"](codes)}, (codebook,))
    labelled = "loss --json --logits {f}/g.npy --labels {d}/y"
    yield Sample("labels", {"y": kinds["npy"](labels)}, (labelled,))


def checkpoint_samples(folder):
    config, weights = json.dumps(CONFIG).encode(), load_file(folder / "m.safetensors")
    estimate = f"estimate --json --data {{f}}/images {FEW} --ckpt"
    names = {
        "m.safetensors": (folder / "m.safetensors").read_bytes(),
        "m.pth": torch_bytes({"state_dict": weights, "epoch": 3}),
        "old.pth": torch_bytes(weights, zipped=False),
    }
    for name, content in names.items():
        commands = (
            f"inspect --json {{d}}/{name}",
            f"inspect --full {{d}}/{name}",
            f"{estimate} {{d}}/{name}",
        )
        yield Sample(name, {name: content, "config.json": config}, commands)
    index = {"weight_map": dict.fromkeys(weights, "part.safetensors")}
    files = {"m.safetensors.index.json": json.dumps(index).encode(), "config.json": config}
    files["part.safetensors"] = names["m.safetensors"]
    yield Sample("shards", files, ("inspect --json {d}", f"{estimate} {{d}}"))
    whole = {"model_index.json": b"{}", "vqvae/config.json": config}
    yield Sample(
        "pipeline", whole | {"vqvae/m.safetensors": names["m.safetensors"]}, ("inspect {d}/vqvae",)
    )


def samples(folder):
    """Return the samples; the sound files are written to the folder."""
    sound_files(folder)
    result, state = (folder / "r.json").read_bytes(), (folder / "s0").read_bytes()
    with_images = f"estimate --json --data {{f}}/images --ckpt {{f}}/m.safetensors {FEW}"
    reports = tuple(f"report {{d}}/r.json -o {{d}}/o.{kind}" for kind in ("md", "csv", "html", "svg"))
    training = {p.name: p.read_bytes() for p in (folder / "t").iterdir() if p.suffix != ".png"}
    resume = f"train --json --data {{f}}/images --output {{d}} --steps 1 {' '.join(SMALL)}"
    ladder = "ladder --tokens {d}/k.npy --result"
    tars = f"estimate --json --data {{d}}/t.tar --ckpt {{f}}/m.safetensors {FEW} --max-failed 1"
    pictures = {f"{i}.{kind}": picture(folder, kind) for i, kind in enumerate(("jpeg", "png", "gif"))}
    seen = "estimate --json --data {d} --ckpt {f}/m.safetensors --max-failed 1 " + FEW
    return [
        *log_samples(),
        *event_samples(folder),
        *array_samples(folder),
        *checkpoint_samples(folder),
        Sample("result", {"r.json": result}, (*reports, "report {d}/r.json {f}/r.json -o {d}/o.html")),
        Sample(
            "result of another command",
            {"r.json": result},
            (
                "monitor {f}/log --floor {d}/r.json --json",
                "loss --logits {f}/kg.npy --labels {f}/k.npy --patch-nums 1,2,8 --floor {d}/r.json",
                "fit {f}/p.csv --floor {d}/r.json --json --bootstrap 0",
                f"{with_images.replace('--temperature 1', '')} --temperature-from {{d}}/r.json",
                "show {f}/images/shapes/shapes_00000.jpg --ckpt {f}/m.safetensors -o {d}/o.png "
                "--device cpu --result {d}/r.json",
            ),
        ),
        Sample(
            "evaluation",
            {"e.json": evaluation(folder).to_json().encode()},
            (
                *(f"report {{d}}/e.json -o {{d}}/o.{kind}" for kind in ("md", "csv", "html")),
                "report {d}/e.json {f}/e.json -o {d}/o.html",
                "fit {d}/e.json {f}/e.json --json",
                "monitor {f}/log --floor {d}/e.json --json",
                "monitor {f}/log --reference {d}/e.json --json",
            ),
        ),
        Sample(
            "tokens",
            {name: (folder / name).read_bytes() for name in ("k.npy", "k.paths.txt", "loss.json")},
            (f"{ladder} {{f}}/r.json", f"{ladder} {{f}}/r.json --model {{d}}/loss.json"),
        ),
        Sample(
            "tokens and their result",
            {name: (folder / name).read_bytes() for name in ("k.npy", "k.paths.txt", "r.json")},
            (f"{ladder} {{d}}/r.json --explain", f"{ladder} {{d}}/r.json --json"),
        ),
        Sample("state", {"s0": state}, ("merge {d}/s0 {f}/s1 --json", "merge --partial {d}/s0 --json")),
        Sample("training", training, (f"{resume} --resume",)),
        Sample("gnu tar", {"t.tar": tar_bytes(folder, tarfile.GNU_FORMAT)}, (tars,)),
        Sample("pax tar", {"t.tar": tar_bytes(folder, tarfile.PAX_FORMAT)}, (tars,)),
        Sample(
            "points",
            {"p.csv": points().encode()},
            ("fit {d}/p.csv --json --bootstrap 0", "fit {d}/p.csv --bootstrap 0"),
        ),
        Sample("pictures", pictures, (seen,)),
    ]


def picture(folder, kind):
    return of(lambda file: Image.open(image_paths(folder)[0]).save(file, kind))
