"""The tokenizer that VAR's published numbers are of. Imports no torch."""

from entropy_cli.results.schema import TokenizerInfo

VAR_CODES = 4096
VAR_PATCH_NUMS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def is_vars(tokenizer: TokenizerInfo) -> bool:
    """Whether a tokenizer is as VAR published it for 256 pixels: of its layout, codes and scales."""
    codes, sides = tokenizer.vocab_size, tuple(tokenizer.patch_nums)
    return tokenizer.family == "var" and codes == VAR_CODES and sides == VAR_PATCH_NUMS
