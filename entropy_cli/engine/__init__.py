"""The room that knows devices, clocks and signals."""
