"""One pass over images, on any device, in one process or several, interrupted or not."""
