"""Weights learnt from pictures and expressions."""
