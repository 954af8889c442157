"""Held-out upper bounds of the irreducible loss of hard tokens, each rung below the last."""
