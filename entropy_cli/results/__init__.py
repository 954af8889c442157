"""Results: their schema, tables, notes, floors and pages."""
