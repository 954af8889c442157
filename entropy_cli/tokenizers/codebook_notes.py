"""What there is to know of a tokenizer's codes before its numbers are read."""

import torch

from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.entropy.codebook_statistics import COINCIDES, coinciding
from entropy_cli.tokenizers.base import Tokenizer

WORTH_SAYING = 0.01  # of a codebook's codes
ONE_PLACE = 1e-3  # of the codes' length: so near their mean, all of them are at one place


def codebook_notes(tokenizer: Tokenizer) -> list[str]:
    """A warning if more than 1 % of the codes coincide with another, to stand beside the spec's notes.

    Args:
        tokenizer: in float32, whose codes have been read.
    """
    books = _distinct(tokenizer)
    copies, gathered = [], []
    for codebook, names in books:
        of = coinciding(codebook.places().cpu())
        if of.number > WORTH_SAYING * of.codes:
            codes = f"{of.codes:,} codes" + (f" of {', '.join(names)}" if len(books) > 1 else "")
            copies.append(f"{'' if of.is_exact else 'about '}{of.number:,} of the {codes}")
            if of.spread is not None and of.spread < ONE_PLACE:
                gathered.append(f"all {codes} are about {of.spread:.0e} of it from their mean")
    if not copies:
        return []
    units = " (as unit vectors)" if tokenizer.spec.rule == "cosine" else ""
    return [
        f"{' and '.join(copies)} coincide with another{units}: at most {COINCIDES:.0e} of the codes' "
        f"median length apart{''.join(f'; {words}' for words in gathered)}. The soft assignment splits "
        "evenly among such copies, which raises the assignment entropy by up to ln n for n of them; "
        "hard tokens go to the copy of the lowest number, or where rounding puts them. Such a codebook "
        "has collapsed or was not trained: take another checkpoint, or leave the copies out (--latents "
        "with a --codebook of your own)"
    ]


def _distinct(tokenizer: Tokenizer) -> list[tuple[Codebook, list[str]]]:
    """The codebooks, those that differ, with the names of the scales that they are of."""
    found: list[tuple[Codebook, list[str]]] = []
    for s, scale in enumerate(tokenizer.spec.scales):
        codebook = tokenizer.codebook(s)
        if isinstance(codebook, Grid):
            continue  # of which no two can be equal
        for other, names in found:
            if torch.equal(other.codes_VC, codebook.codes_VC):
                names.append(scale.name)
                break
        else:
            found.append((codebook, [scale.name]))
    return found
