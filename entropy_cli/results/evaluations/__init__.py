"""Results of evaluate as text: their checks, notes, summary and tables."""
