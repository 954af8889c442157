"""The tokenizer that VAR's published numbers refer to. Imports no torch."""

from entropy_cli.results.schema import Result, TokenizerInfo

VAR_CODES = 4096
VAR_PATCH_NUMS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def is_published_var(tokenizer: TokenizerInfo) -> bool:
    """Return whether a tokenizer has the layout, codes and scales that VAR published for 256 pixels."""
    codes, sides = tokenizer.vocab_size, tuple(tokenizer.patch_nums)
    return tokenizer.family == "var" and codes == VAR_CODES and sides == VAR_PATCH_NUMS


def is_var_style(result: Result) -> bool:
    """Return whether the headline is of VAR's rule at the temperature that VAR's code has."""
    tokenizer = result.tokenizer
    is_var = tokenizer.family == "var" and tokenizer.rule == "l2" and len(result.scales) > 1
    return is_var and result.settings.temperature == 1
