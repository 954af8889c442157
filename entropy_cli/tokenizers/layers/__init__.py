"""Networks that the families' encoders are made of."""
