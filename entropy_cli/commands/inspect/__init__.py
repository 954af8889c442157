"""Look into a checkpoint."""
