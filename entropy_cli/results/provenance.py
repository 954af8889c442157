"""How a result was made: its inputs and settings, and the machine, in words."""

from typing import Any

from entropy_cli.results.checks import number_or_auto
from entropy_cli.results.path import is_drawn
from entropy_cli.results.schema import Result

SPLITS = ("train", "val", "all")


def provenance(result: Result) -> dict[str, str]:
    """Return the inputs and settings of a result, and how it was computed, by label."""
    data, tokenizer, settings = result.data, result.tokenizer, result.settings
    origin = result.provenance
    scales = ", ".join(str(scale.patch_num or scale.name) for scale in result.scales)
    groups = sum(1 for images in result.replicates["images"] if images)
    kind = {"sign": "bits", "bsq": "bits", "levels": "levels"}.get(tokenizer.rule, "dimensions")
    return {
        "images": f"{_shard(origin)}{data.images_used:,} of {data.images_found:,} used, "
        f"{data.images_failed:,} unreadable; "
        f"{f'split {data.split}, ' if data.split in SPLITS else ''}"
        f"{origin.get('data_address', origin['data'])}, "
        f"order and groups by seed {settings.seed}",
        "preprocessing": settings.preprocess,
        "tokenizer": f"family {tokenizer.family}, {tokenizer.vocab_size} codes of "
        f"{tokenizer.latent_dim} {kind}, {tokenizer.rule} rule, scales {scales}, "
        f"{sum(scale.tokens for scale in result.scales)} tokens an image"
        + (f" of {settings.image_size} px" if settings.image_size else ""),
        **_checkpoint(result),
        "temperature": ", ".join(number_or_auto(at.temperature) for at in result.temperatures)
        + f"; {settings.temperature_source}{_hard_fit(result)}",
        **_path(result),
        **_target(result),
        **_precision(result),
        "computed": f"in {settings.precision} {_kernels(origin)}" + _machine(origin),
        "errors": f"delete-a-group jackknife over {groups} groups of {settings.cluster}s, Student's t",
    }


def _checkpoint(result: Result) -> dict[str, str]:
    """Return the checkpoint's file, weights and hash; nothing if there is no file."""
    origin, sha256 = result.provenance, result.tokenizer.checkpoint_sha256
    if sha256 is None:
        return {}
    several = len(origin.get("checkpoint_copies", [])) > 1
    weights = f", {origin['checkpoint_weights']} weights of the two it holds" if several else ""
    where = origin.get("checkpoint_address", origin["checkpoint"])
    return {"checkpoint": f"{where}{weights} (sha256 {sha256[:16]}...)"}


def _path(result: Result) -> dict[str, str]:
    """Return how the tokens were drawn, if they were."""
    if not is_drawn(result):
        return {}
    seed = result.settings.seed
    return {"path": f"tokens drawn at the first temperature, by seed {seed}, and subtracted"}


def _target(result: Result) -> dict[str, str]:
    """Return whether early stopping reached its target, if the run had one."""
    if result.target_reached is None:
        return {}
    used, found = result.data.images_used, result.data.images_found
    widest = result.history[-1].widest
    current = "" if widest is None else f"; the widest interval of the averages is ± {widest:.4f}"
    outcome = f": {used} images were enough, the full set has {found}"
    if not result.target_reached:
        outcome = f" was not reached with {used} images"
    return {"target": f"± {result.provenance['target_ci']:g} nats{outcome}{current}"}


def _precision(result: Result) -> dict[str, str]:
    """Return how much an encoder in less than float32 precision changes the result."""
    check = result.precision_check
    if check is None:
        return {}
    difference = check["assignment_entropy_difference_token_weighted"]
    largest = max(map(abs, check["assignment_entropy_difference"]))
    return {
        "precision": f"{result.settings.precision} against {check['reference']} on the first "
        f"{check['images']} images: {check['tokens_changed_overall']:.2%} of the tokens change, "
        f"the token-weighted assignment entropy by {difference:+.1e} nats (at a scale by at most "
        f"{largest:.1e}), latents by {check['latent_relative_error']:.1e} of their size"
    }


def _shard(origin: dict[str, Any]) -> str:
    shard = origin.get("shard")
    return f"ONLY SHARD {shard[0]}/{shard[1]}: " if shard else ""


def _kernels(origin: dict[str, Any]) -> str:
    """Return what else than torch's own kernels ran the encoder."""
    kernels = origin.get("kernels") or "torch"  # missing from older results
    return "" if kernels == "torch" else f"({kernels}) "


def _machine(origin: dict[str, Any]) -> str:
    """Describe the device, the time and the speed of a run, or the states that were merged."""
    if "states" in origin:
        number = len(origin["states"])
        return f"by adding {number} state{'s' if number > 1 else ''}{_parts(origin.get('runs', []))}"
    processes = f"{origin['processes']} processes " if origin["processes"] > 1 else ""
    resumed = origin["images_resumed"]
    return (
        f"{processes}on {origin['device']}, {origin['seconds']:.1f} s, "
        f"{origin['images_per_s']:.1f} images/s"
        + (f", {resumed} images from earlier runs" if resumed else "")
    )


def _parts(runs: list[dict[str, Any]]) -> str:
    """Describe the runs that were merged: each value once, in the order of the runs."""
    seconds = sum(run.get("seconds", 0.0) for run in runs)
    words = [
        f"{before} {', '.join(values)}"
        for before, key in (("on", "device"), ("in batches of", "batch_size"), ("with torch", "torch"))
        if (values := dict.fromkeys(str(run[key]) for run in runs if key in run))
    ]
    return "".join(f", {word}" for word in [*words, f"{seconds:.1f} s in all"]) if runs else ""


def _hard_fit(result: Result) -> str:
    """Describe the temperatures fitted to the nearest codes alone: too low where clusters overlap."""
    fit = result.provenance.get("temperature_fit")
    values = ", ".join(map(number_or_auto, fit["hard"])) if fit else ""
    return f"; from the nearest codes alone it would be {values}" if fit else ""
