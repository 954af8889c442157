"""Readers of training logs: one module per group of formats, and the series they yield."""
