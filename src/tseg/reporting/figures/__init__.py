"""Figures, and the page that they share."""
