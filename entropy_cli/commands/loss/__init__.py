"""Split a model's cross-entropy into its parts."""
