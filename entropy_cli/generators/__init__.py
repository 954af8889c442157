"""Autoregressive generators of tokens: their layouts, and their losses under teacher forcing."""
