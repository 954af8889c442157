"""The legend of a result's tables: the meaning of each column that the result has."""

from entropy_cli.results.path import is_drawn
from entropy_cli.results.schema import Result

AVERAGES = {
    "token_weighted": "token-weighted",
    "over_scales": "unweighted mean over scales",
    "last_scale": "final scale",
}
LEGEND = {
    "T": "temperature; a token's soft assignment is q = softmax({logits} / T)",
    "assignment entropy": "mean entropy of q: the uncertainty about a token's code given its latent",
    "marginal entropy": "entropy of the mean of q: how evenly the soft assignments use the codes",
    "mutual information": "marginal minus assignment entropy: information about the latents in the "
    "soft assignments",
    "varentropy": "slope of the assignment entropy in ln T: {units} for each factor e of T",
    "unigram entropy": "entropy of the {chosen} codes: the loss of a model that knows only the "
    "frequency of each code",
    "perplexity": "exp(unigram entropy): the number of equally frequent codes with that entropy",
    "codebook usage": "share of the codes that are {chosen_for} at least one token of these images",
    "coverage": "probability of the codes seen so far (Good-Turing); near 1 if there are enough images",
    "token-weighted": "average over all tokens, like a model's mean loss",
    "unweighted mean over scales": "average in which every scale has the same weight",
    "final scale": "the finest scale alone, like a model's tail loss",
}
HARD_TERMS = ("unigram entropy", "perplexity", "codebook usage", "coverage")

# The quantity that the temperature divides, by rule.
LOGITS = {
    "cosine": "-squared distance of unit vectors",
    "dot": "dot product with each code",
    "logits": "logits",
}


def averages(result: Result) -> dict[str, str]:
    """Return the averages to show, by key: none for a single scale, which they all equal."""
    return AVERAGES if len(result.scales) > 1 else {}


def is_counted(result: Result) -> bool:
    """Return whether hard tokens were counted: there may be too many codes."""
    return any(scale.coverage is not None for scale in result.scales)


def legend(result: Result, units: str) -> dict[str, str]:
    """Return the terms in the tables of a result, and their meanings."""
    logits = LOGITS.get(result.tokenizer.rule, "-squared distance to each code")
    chosen, chosen_for = ("drawn", "drawn for") if is_drawn(result) else ("nearest", "nearest to")
    absent = set(AVERAGES.values()) - set(averages(result).values())
    if not is_counted(result):
        absent |= set(HARD_TERMS)
    return {
        term: meaning.format(units=units, logits=logits, chosen=chosen, chosen_for=chosen_for)
        for term, meaning in LEGEND.items()
        if term not in absent
    }
