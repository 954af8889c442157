"""Entropies, their estimators and their standard errors, as pure functions of tensors and numbers."""
