"""The most that is taken of sizes, far above what is of use, and facts of families; without torch."""

MOST_PIXELS = 2**14  # on a side of an image
MOST_SIDE = 2**12  # of the grid of a scale
MOST_SCALES = 100
MOST_GROUPS = 2**12  # of a group norm

# Families whose scales are all of the whole latent: no codes are subtracted between them.
INDEPENDENT_SCALES = frozenset({"flexvar"})
