"""Tensors in, tensors out: the encoders, their similarities, the poolings."""
