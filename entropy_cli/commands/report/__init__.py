"""Write results as pages, figures and tables."""
