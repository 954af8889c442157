"""Run the main job on images that the program makes itself."""
