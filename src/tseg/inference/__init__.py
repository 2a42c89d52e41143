"""Similarities, masks and their refinement for images that were not trained on."""
