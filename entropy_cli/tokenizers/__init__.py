"""Tokenizers: opening checkpoints, and one file for each published family."""
