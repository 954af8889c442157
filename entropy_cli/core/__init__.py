"""Files, terminals and figures: no module here knows about images or tokenizers."""
