"""The result of `bench`, as JSON and as a table. Imports no torch."""

import json
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

SCHEMA = "entropy-cli/bench"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Timing:
    """The timing of one stage by one contender; medians over the rounds.

    Attributes:
        share_of_floor: least time for the counted work on the measured device / time taken.
    """

    ms_per_image: float
    fastest_ms_per_image: float
    share_of_floor: float | None


@dataclass(frozen=True)
class Stage:
    """A stage's timings by contender; `ratios`: plain loop's time / program's, round by round."""

    name: str
    timings: dict[str, Timing]
    ratios: list[float] | None


@dataclass(frozen=True)
class Errors:
    """Largest differences between program and plain loop, in the units of the latents and in nats.

    Attributes:
        quantiser_tokens_changed: hard tokens that differ for the same latents.
        tokens_changed: hard tokens that differ for the same images, out of `tokens`.
    """

    latents: float
    quantiser_tokens_changed: int
    quantiser_entropy: float
    tokens_changed: int
    entropy: float
    tokens: int


@dataclass(frozen=True)
class Bench:
    """A benchmark; work in FLOP and bytes per image, peaks in FLOP and bytes per second."""

    device: str
    images: int
    rounds: int
    workload: dict[str, Any]
    work: dict[str, dict[str, float]]
    peak: dict[str, dict[str, float]]
    peak_memory_bytes: dict[str, int]
    stages: list[Stage]
    errors: Errors | None

    def to_json(self) -> str:
        """Return the benchmark as JSON text."""
        content = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps(content, allow_nan=False, indent=1)


def render(bench: Bench) -> str:
    """Render the timings as a table, with the workload, the device's peak and the errors below."""
    contenders = list(bench.stages[0].timings)
    head = ["stage", *(f"{name}, ms/image" for name in contenders), "images/s", "share of floor"]
    rows = [[*head, "speedup", "range"] if len(contenders) > 1 else head]
    for stage in bench.stages:
        ours = stage.timings[contenders[0]]
        share = "" if ours.share_of_floor is None else f"{ours.share_of_floor:.0%}"
        row = [stage.name, *(f"{stage.timings[name].ms_per_image:.2f}" for name in contenders)]
        row += [f"{1000 / ours.ms_per_image:.1f}", share]
        if stage.ratios is not None:
            row += [f"{median(stage.ratios):.2f}", f"{min(stage.ratios):.2f} to {max(stage.ratios):.2f}"]
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([*lines, "", *_footer(bench)])


def _footer(bench: Bench) -> list[str]:
    """Return the lines below the table."""
    encoder, quantiser = (bench.work[stage] for stage in ("encoder", "quantiser"))
    fast, exact = (bench.peak[stage] for stage in ("encoder", "quantiser"))
    load = bench.workload
    memory = ", ".join(
        f"{name} {size / 2**20:.0f} MiB" for name, size in bench.peak_memory_bytes.items()
    )
    requested = "" if bench.images == load["images"] else f" (of {load['images']} requested)"
    lines = [
        f"timed         {bench.images} images{requested} in batches of {load['batch_size']}, "
        f"{load['workers']} workers, encoder in {load['precision']};",
        f"              medians of {bench.rounds} rounds, contenders alternating",
        f"device        {bench.device}: for the encoder {fast['flop_per_s'] / 1e12:.3g} TFLOP/s "
        f"measured in {load['precision']},",
        f"              for the quantiser {exact['flop_per_s'] / 1e12:.3g} in fp32; "
        f"{fast['bytes_per_s'] / 1e9:.3g} GB/s copied",
        "floor         least time: FLOP or bytes at those speeds, whichever takes longer; per image:",
        f"              encoder {encoder['flop'] / 1e9:.4g} GFLOP, {encoder['traffic'] / 1e9:.3g} GB; "
        f"quantiser {quantiser['flop'] / 1e9:.3g} GFLOP, {quantiser['traffic'] / 1e9:.3g} GB",
        f"peak memory   {memory}",
    ]
    if bench.errors is not None:
        e = bench.errors
        lines += [
            f"differences   {e.tokens_changed} of {e.tokens} tokens, entropies up to {e.entropy:.1e} "
            f"nats, latents up to {e.latents:.1e}",
            f"              from the same latents: {e.quantiser_tokens_changed} tokens, "
            f"up to {e.quantiser_entropy:.1e} nats",
        ]
    return lines
