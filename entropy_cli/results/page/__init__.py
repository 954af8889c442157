"""Reports of results: HTML pages, figures, Markdown and CSV. Imports no torch."""
