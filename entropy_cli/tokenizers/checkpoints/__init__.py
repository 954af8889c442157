"""Opening checkpoints and arrays without running what they contain."""
