"""Notes on a result: what its number is a floor of, and how far to trust it."""

from entropy_cli.results.path import subtracted
from entropy_cli.results.schema import Result

# What the floor takes for granted, by the codes that are subtracted.
PATHS = {
    "": [],
    "nearest codes": [
        "It is one where the nearest codes are subtracted before the next scale, as they were here. "
        "Where drawn codes are, the latents of later scales are others: take --path drawn."
    ],
    "drawn codes": [
        "It is one where codes drawn at the first temperature are subtracted before the next scale, as "
        "they were here; other temperatures are read along that path. Unigram entropy and usage count "
        "the drawn tokens, which --save-tokens writes."
    ],
}


def notes(result: Result) -> list[str]:
    """Return the notes that apply to a result, the most important first."""
    return [
        *_meaning(result),
        *population(result),
        *_temperature(result),
        *_product(result),
        *result.provenance.get("checkpoint_notes", []),
        *result.provenance.get("codebook_notes", []),
    ]


def _meaning(result: Result) -> list[str]:
    return [
        "The assignment entropy is a floor of the cross-entropy of a model that is trained on the soft "
        "assignments q, or on tokens drawn from them. For one trained on the nearest codes, as VAR is, "
        "it is neither floor nor ceiling: such a loss may fall below it, or stay far above.",
        *PATHS[subtracted(result)],
        "It is a property of the tokenizer alone: the uncertainty about the image itself comes on top.",
        *_ceiling(result),
    ]


def _ceiling(result: Result) -> list[str]:
    limit = result.average.token_weighted.ceiling
    if limit is None:
        return []
    return [
        f"If a trained model's loss is above the unigram entropy (at most {limit:.3f} nats per token "
        "here, held out), something is broken, or labels and vocabulary do not match."
    ]


def population(result: Result) -> list[str]:
    """Return what the intervals are about."""
    if result.settings.cluster == "folder":
        groups = sum(1 for images in result.replicates["images"] if images)
        return [
            "The intervals are about images of other folders, which these folders are a sample of: the "
            f"errors come from {groups} groups of whole folders."
        ]
    about = "The intervals are about other images, drawn as these were"
    if result.data.split in ("latents", "given"):
        return [f"{about}."]
    return [
        f"{about}, from the same folders. Where folders are scenes, or a sample of classes, these "
        "errors are too small for others of their kind: use --cluster folder."
    ]


def _product(result: Result) -> list[str]:
    """Return the notes for codes that are combinations of bits or levels."""
    average = result.average.token_weighted
    if average.marginal_entropy_bound is None:
        return []
    lines = [
        f"The marginal entropy is at most {average.marginal_entropy_bound.known:.3f} nats per token, "
        "the sum of the entropies of its dimensions."
    ]
    if average.marginal_entropy.value is None:
        lines.append(
            "There are too many codes to count them, so only this bound on their usage is known."
        )
    if result.tokenizer.rule in ("sign", "bsq"):
        bits = result.tokenizer.latent_dim
        lines.append(
            f"A token has {bits} bits. Models that predict bits report a loss per bit; compare it with "
            f"{average.assignment_entropy.known / bits:.4f} nats per bit here."
        )
    return lines


def _temperature(result: Result) -> list[str]:
    average = result.average.token_weighted
    lines = [
        "The assignment entropy depends on the temperature: near this one it changes by "
        f"{average.varentropy.known:.3f} nats for each factor e of T. Other tokenizers scale their "
        "latents differently, so values at the same temperature are not comparable between tokenizers."
    ]
    fit = result.provenance.get("temperature_fit")
    for ended, problem in (
        ("flat", "the fitted temperature has no maximum; the fit stopped when q became nearly uniform"),
        ("slow", "the fit of the temperature did not converge; the value is that of its last step"),
    ):
        scales = [str(s) for s, end in enumerate(fit["ended"]) if end == ended] if fit else []
        if scales:
            lines.append(f"Scale {', '.join(scales)}: {problem}.")
    return lines
