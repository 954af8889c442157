"""Run an estimate on synthetic images."""
