"""Fit a scaling law to trained models."""
