"""Scores of masks and label maps."""
