"""Weights learnt from images and expressions."""
