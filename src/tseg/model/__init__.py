"""Tensors in, tensors out: the encoders, their similarities, the poolings."""

import tseg.torchvision_operators  # noqa: F401  (before timm and transformers are imported)
