"""Generator families, one file each; `generators.registry` has their rows."""
