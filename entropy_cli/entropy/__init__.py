"""Pure functions of tensors and numbers: entropies, their estimators and their errors."""
