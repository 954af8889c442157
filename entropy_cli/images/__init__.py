"""Images from folders and tars, read in a seeded order."""
