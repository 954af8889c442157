"""The guide: pages on what the program does, printed on a terminal."""
