"""Warnings about a tokenizer's codes, to read before its numbers."""

import torch

from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.entropy.codebook_statistics import NEAR_DUPLICATE, near_duplicates
from entropy_cli.tokenizers.base import Tokenizer

WARN_ABOVE = 0.01  # share of a codebook's codes
COLLAPSED = 1e-3  # distance from their mean, as a share of the codes' length


def codebook_notes(tokenizer: Tokenizer) -> list[str]:
    """Return a warning for the spec's notes if more than 1 % of the codes coincide with another."""
    codebooks = _distinct(tokenizer)
    copies, collapsed = [], []
    for codebook, names in codebooks:
        found = near_duplicates(codebook.codes_for_comparison().cpu())
        if found.number > WARN_ABOVE * found.codes:
            codes = f"{found.codes:,} codes" + (f" of {', '.join(names)}" if len(codebooks) > 1 else "")
            copies.append(f"{'' if found.is_exact else 'about '}{found.number:,} of the {codes}")
            if found.spread is not None and found.spread < COLLAPSED:
                collapsed.append(f"all {codes} are about {found.spread:.0e} of it from their mean")
    if not copies:
        return []
    units = " (as unit vectors)" if tokenizer.spec.rule == "cosine" else ""
    return [
        f"{' and '.join(copies)} coincide with another{units}: at most {NEAR_DUPLICATE:.0e} of the "
        f"codes' median length apart{''.join(f'; {words}' for words in collapsed)}. The soft assignment "
        "splits evenly among such copies, which raises the assignment entropy by up to ln n for n of "
        "them; hard tokens go to the copy of the lowest number, or where rounding puts them. Such a "
        "codebook has collapsed or was not trained: take another checkpoint, or leave the copies out "
        "(--latents with a --codebook of your own)"
    ]


def _distinct(tokenizer: Tokenizer) -> list[tuple[Codebook, list[str]]]:
    """List the codebooks that differ, each with the names of its scales."""
    found: list[tuple[Codebook, list[str]]] = []
    for s, scale in enumerate(tokenizer.spec.scales):
        codebook = tokenizer.codebook(s)
        if isinstance(codebook, Grid):
            continue  # no two of its codes are equal
        for other, names in found:
            if torch.equal(other.codes_VC, codebook.codes_VC):
                names.append(scale.name)
                break
        else:
            found.append((codebook, [scale.name]))
    return found
