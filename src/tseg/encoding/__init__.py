"""Tokens of frozen encoders, computed once and read by every training and prediction."""
