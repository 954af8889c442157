"""Inspect a checkpoint."""
