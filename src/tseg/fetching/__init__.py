"""Sources of the catalogue: draw or download, verify and unpack."""
