"""`entropy-cli ladder`."""
