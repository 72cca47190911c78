"""Grids of trainings: their cells, where these run, and the report of what they say about the paper."""
