"""Samplings for tests: small crops, flips and two expressions an image."""

from typing import Any

from tseg.training.batches import Sampling


def sampling(**changed: Any) -> Sampling:
    """A sampling with some settings `changed`."""
    settings: dict[str, Any] = {
        "batch_size": 3,
        "expressions_per_image": 2,
        "resolution": 32,
        "scale": (0.8, 1.25),
        "flip": True,
        "flip_words": "swap",
        "seed": 0,
    }
    return Sampling(**(settings | changed))
