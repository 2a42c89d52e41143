"""Bootstrap intervals: how much a score depends on the sample of images."""

import numpy as np


def resample(images: np.ndarray, num_bootstrap: int, seed: int) -> np.ndarray:
    """Sums (num_bootstrap, D) of rows of `images` (P, D): each sum is over P rows drawn with replacement."""
    generator, num_images = np.random.default_rng(seed), len(images)
    draws = (generator.integers(num_images, size=num_images) for _ in range(num_bootstrap))
    return np.stack([images[draw].sum(axis=0) for draw in draws])


def interval(scores: np.ndarray) -> tuple[float, float]:
    """The 95% interval of the scores of resamplings: their 2.5th and 97.5th percentiles."""
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)
