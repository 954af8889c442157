"""Time the program beside a plain loop."""
