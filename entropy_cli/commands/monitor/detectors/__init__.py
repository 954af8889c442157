"""Detectors of plateaus, rebounds, divergence and overfitting, with measured error rates."""
