"""Runs over images: from a config to a result, resumable, sharded and merged."""
