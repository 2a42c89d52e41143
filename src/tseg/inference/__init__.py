"""Similarities, masks and their refinement for pictures that were not trained on."""
