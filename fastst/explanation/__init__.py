"""Measures of an explanation, and pictures of it."""
