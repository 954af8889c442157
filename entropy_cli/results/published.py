"""The tokenizer that VAR's published numbers refer to. Imports no torch."""

from entropy_cli.results.schema import TokenizerInfo

VAR_CODES = 4096
VAR_PATCH_NUMS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def is_published_var(tokenizer: TokenizerInfo) -> bool:
    """Return whether a tokenizer has the layout, codes and scales that VAR published for 256 pixels."""
    codes, sides = tokenizer.vocab_size, tuple(tokenizer.patch_nums)
    return tokenizer.family == "var" and codes == VAR_CODES and sides == VAR_PATCH_NUMS
