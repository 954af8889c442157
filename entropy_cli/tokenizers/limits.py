"""The most that is taken of sizes, far above what is of use; imports no torch."""

MOST_PIXELS = 2**14  # on a side of an image
MOST_SIDE = 2**12  # of the grid of a scale
MOST_SCALES = 100
MOST_GROUPS = 2**12  # of a group norm
