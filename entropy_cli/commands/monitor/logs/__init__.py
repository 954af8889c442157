"""Training logs: their formats, and the series in them."""
