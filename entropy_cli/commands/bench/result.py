"""The result of `bench`, as JSON and as a table. Imports no torch."""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from entropy_cli.core.table import Table, definitions

if TYPE_CHECKING:
    from entropy_cli.tokenizers.base import TokenizerSpec
    from entropy_cli.tokenizers.precision import Precision
    from entropy_cli.tokenizers.settings import TokenizerSettings

SCHEMA = "entropy-cli/bench"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Workload:
    """The images and the tokenizer to time, with the settings of the pass."""

    checkpoint: Path
    data: Path
    images: int
    batch_size: int
    workers: int
    device: str
    precision: "Precision"
    temperatures: tuple[float, ...]
    family: str
    tokenizer: "TokenizerSettings"
    model: Path | None = None  # a generator

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages to time."""
        of_model = () if self.model is None else ("generator",)
        return ("load", "decode", "encoder", "quantiser", *of_model, "end to end")

    def record(self, spec: "TokenizerSpec") -> dict[str, Any]:
        """Return the workload with the tokenizer's sizes and the versions, for JSON."""
        own = {name: value for name, value in vars(self).items() if name != "tokenizer"}
        sizes = ("family", "image_size", "patch_nums", "vocab_size", "latent_dim")
        packages = ("entropy-cli", "torch", "torchvision", "pillow")
        return {
            **own,
            "checkpoint": str(self.checkpoint),
            "data": str(self.data),
            "model": None if self.model is None else str(self.model),
            **{name: getattr(spec, name) for name in sizes},
            "versions": {name: version(name) for name in packages},
        }


@dataclass(frozen=True)
class Work:
    """The least work of a call."""

    flop: float  # of products and convolutions, 2 for a multiply-add
    traffic: float  # bytes if each product reads its factors once and writes its result once


@dataclass(frozen=True)
class Peak:
    """The measured peak of a device: FLOP and bytes per second."""

    flop_per_s: float
    bytes_per_s: float

    def least_seconds(self, work: Work) -> float:
        """Return the least time for some work, in seconds."""
        return max(work.flop / self.flop_per_s, work.traffic / self.bytes_per_s)


@dataclass(frozen=True)
class Timing:
    """The timing of one stage by one contender; medians over the rounds."""

    ms_per_image: float
    fastest_ms_per_image: float
    share_of_floor: float | None  # least time for the counted work on the device / time taken


@dataclass(frozen=True)
class Stage:
    """A stage's timings by contender.

    The checkpoint is loaded once: the time of the stage `load` is shared among the images.
    """

    name: str
    timings: dict[str, Timing]
    ratios: list[float] | None  # plain loop's time / program's, round by round


@dataclass(frozen=True)
class Errors:
    """Largest differences between program and plain loop, in the units of the latents and in nats."""

    latents: float
    quantiser_tokens_changed: int  # hard tokens that differ for the same latents
    quantiser_entropy: float
    tokens_changed: int  # hard tokens that differ for the same images
    entropy: float
    tokens: int  # all of them
    cross_entropy: float | None = None  # of a generator, the mean over the same tokens


@dataclass(frozen=True)
class Bench:
    """A benchmark; work in FLOP and bytes per image, peaks in FLOP and bytes per second."""

    device: str
    images: int
    rounds: int
    repeats: dict[str, int]  # how often a round of a stage goes over all images, if more than once
    workload: dict[str, Any]
    work: dict[str, Work]
    peak: dict[str, Peak]
    peak_memory_bytes: dict[str, int]
    stages: list[Stage]
    errors: Errors | None

    def to_json(self) -> str:
        """Return the benchmark as JSON text."""
        content = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps(content, allow_nan=False, indent=1)


def render(bench: Bench, *, full: bool) -> str:
    """Render the timings and what was timed; `full` adds the fastest passes and the floor."""
    terms = {**_summary(bench), **(_details(bench) if full else {})}
    return f"{_table(bench, full=full).text()}\n\n{definitions(terms)}"


def _table(bench: Bench, *, full: bool) -> Table:
    head = ["stage", *bench.peak_memory_bytes, "images/s", "share of floor", "speedup", "range"]
    head += [f"fastest {name}" for name in bench.peak_memory_bytes] if full else []
    rows = []
    for stage in bench.stages:
        # The checkpoint is loaded once for all images.
        is_load, timings, ratios = stage.name == "load", list(stage.timings.values()), stage.ratios
        unit, share = bench.images if is_load else 1, timings[0].share_of_floor
        rows.append(
            [
                "load, ms" if is_load else stage.name,
                *(f"{timing.ms_per_image * unit:.2f}" for timing in timings),
                None if is_load else f"{1000 / timings[0].ms_per_image:.1f}",
                None if share is None else f"{share:.0%}",
                f"{median(ratios):.2f}" if ratios else None,
                f"{min(ratios):.2f}-{max(ratios):.2f}" if ratios else None,
                *(f"{timing.fastest_ms_per_image * unit:.2f}" for timing in timings if full),
            ]
        )
    return Table("bench", "ms per image", head, rows).without_empty_columns()


def _summary(bench: Bench) -> dict[str, str]:
    load, e = bench.workload, bench.errors
    requested = "" if bench.images == load["images"] else f" (of {load['images']} requested)"
    memory = [f"{name} {size / 2**20:.0f} MiB" for name, size in bench.peak_memory_bytes.items()]
    terms = {
        "timed": f"{bench.images} images{requested} in batches of {load['batch_size']}, "
        f"{load['workers']} workers, encoder in {load['precision']}; medians of {bench.rounds} rounds, "
        "contenders alternating",
        "device": bench.device,
        "peak memory": ", ".join(memory),
    }
    if e is not None:
        terms["differences"] = (
            f"{e.tokens_changed} of {e.tokens} tokens, entropies up to {e.entropy:.1e} nats, latents up "
            f"to {e.latents:.1e}; from the same latents {e.quantiser_tokens_changed} tokens, up to "
            f"{e.quantiser_entropy:.1e} nats"
        )
        if e.cross_entropy is not None:
            terms["differences"] += f"; the generator's cross-entropy {e.cross_entropy:.1e} nats"
    return terms


def _details(bench: Bench) -> dict[str, str]:
    least = "; ".join(
        f"{part} {work.flop / 1e9:.4g} GFLOP, {work.traffic / 1e9:.3g} GB"
        for part, work in bench.work.items()
    )
    fast, exact = (bench.peak[part] for part in ("encoder", "quantiser"))
    return {
        "load": "open the checkpoint, hash it (the program alone) and build the tokenizer; once a run",
        "repeats": ", ".join(f"{stage} {times}" for stage, times in bench.repeats.items())
        + " times over all images, so that the start of the workers hardly counts",
        "measured": f"{fast.flop_per_s / 1e12:.3g} TFLOP/s for the encoder in "
        f"{bench.workload['precision']}, {exact.flop_per_s / 1e12:.3g} for the quantiser in fp32; "
        f"{fast.bytes_per_s / 1e9:.3g} GB/s copied",
        "floor": "least time: FLOP or bytes at those speeds, whichever takes longer; per image: "
        + least,
    }
