"""Results as pages, pictures and tables for others; imports no torch."""
