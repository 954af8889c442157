"""Detectors of what a training curve shows, with their measured error rates."""
