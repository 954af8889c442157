"""Estimate the entropies of a tokenizer on images, and merge the states of shards."""
