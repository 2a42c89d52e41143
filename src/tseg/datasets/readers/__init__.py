"""Readers of the official annotation formats, and of pairs of images and phrases."""
