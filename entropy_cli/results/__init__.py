"""Results and states: schema, files, tables."""
