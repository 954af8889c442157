"""The command `evaluate`: a generator's own loss, beside the floors of its tokens."""
