"""Time the program, with or without a plain loop as the baseline."""
