"""How far a score depends on which pictures happen to be in the data set."""

import numpy as np


def resample(pictures: np.ndarray, num_bootstrap: int, seed: int) -> np.ndarray:
    """Sums (num_bootstrap, D) of what P pictures add to a score, (P, D), each of P pictures drawn with replacement."""
    generator, num_pictures = np.random.default_rng(seed), len(pictures)
    draws = (generator.integers(num_pictures, size=num_pictures) for _ in range(num_bootstrap))
    return np.stack([pictures[draw].sum(axis=0) for draw in draws])


def interval(scores: np.ndarray) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of the scores of resamplings."""
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)
