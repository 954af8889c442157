"""Reading images from folders and tars, in a seeded order."""
