"""Files, terminals and figures: nothing that knows of images or tokenizers."""
