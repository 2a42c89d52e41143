"""TSEG: segmentation learned from words (Strudel, Laptev, Schmid 2022)."""
