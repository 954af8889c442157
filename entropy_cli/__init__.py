"""entropy-cli: an irreducible-loss estimator for discrete visual tokenizers."""

__version__ = "0.1.0"
