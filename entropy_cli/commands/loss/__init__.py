"""Split a model's cross-entropy."""
