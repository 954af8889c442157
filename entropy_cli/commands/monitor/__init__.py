"""Read a training log against the floor."""
