"""Tokenizers: opening checkpoints, and one module for each published family."""
