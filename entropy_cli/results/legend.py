"""The words beside the table: what each column means, of those that this result has."""

from entropy_cli.results.schema import Result

AVERAGES = {
    "token_weighted": "token-weighted",
    "over_scales": "over scales",
    "last_scale": "last scale",
}
LEGEND = {
    "T": "temperature; a token's soft assignment is q = softmax({logits} / T)",
    "assignment entropy": "mean entropy of q: what a token's latent leaves open about its code",
    "marginal entropy": "entropy of the mean of q: how evenly the codes are used, softly",
    "mutual information": "marginal minus assignment entropy: what soft tokens tell of the latents",
    "varentropy": "how fast the assignment entropy grows with T: {units} for each factor e",
    "unigram entropy": "entropy of the nearest codes: the loss of a model that knows only how frequent "
    "each is",
    "perplexity": "exp(unigram entropy): so many equally frequent codes would have that entropy",
    "codes used": "share of the codebook that was nearest to some token of these images",
    "coverage": "probability of the codes seen so far (Good-Turing); near 1 if the images are enough",
    "token-weighted": "average over all tokens, as a model's mean loss is",
    "over scales": "average in which every scale counts the same",
    "last scale": "the finest alone, as a model's tail loss is",
}
HARD_TERMS = ("unigram entropy", "perplexity", "codes used", "coverage")

# What the temperature divides, by the rule.
LOGITS = {
    "cosine": "-squared distance of unit vectors",
    "dot": "dot product with each code",
    "logits": "logits",
}


def averages(result: Result) -> dict[str, str]:
    """The averages worth showing: of one scale, all are the scale itself."""
    return AVERAGES if len(result.scales) > 1 else {}


def is_counted(result: Result) -> bool:
    """Whether there are hard tokens to show: some codes are too many to be counted."""
    return any(scale.coverage is not None for scale in result.scales)


def legend(result: Result, units: str) -> dict[str, str]:
    """Terms and what they mean."""
    logits = LOGITS.get(result.tokenizer.rule, "-squared distance to each code")
    absent = set(AVERAGES.values()) - set(averages(result).values())
    if not is_counted(result):
        absent |= set(HARD_TERMS)
    return {
        term: words.format(units=units, logits=logits)
        for term, words in LEGEND.items()
        if term not in absent
    }
