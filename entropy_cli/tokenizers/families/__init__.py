"""Tokenizer families, one file each; `tokenizers.registry` has their rows."""
