"""The frozen pipeline: one file per vertex, left to right."""
