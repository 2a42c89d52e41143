"""PAMR against a direct computation of its definition, pixel by pixel, in NumPy and float64."""

import numpy as np
import pytest

from tseg.inference.pamr import refine_maps
from tseg.inference.refinement import refine_labels, refine_masks

HEIGHT, WIDTH = 13, 17
DILATIONS, NUM_ITERATIONS = (1, 2, 4, 8, 12, 24), 10  # of 1-stage-wseg


def image() -> np.ndarray:
    """A bright disc on a dark ground, with noise."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    disc = (rows - 6) ** 2 + (columns - 8) ** 2 < 16
    noise = np.random.default_rng(0).integers(0, 20, (HEIGHT, WIDTH, 3))
    return np.where(disc[..., None], 200 + noise, 30 + noise).astype(np.uint8)


def probabilities(number: int = 2) -> np.ndarray:
    return np.random.default_rng(1).random((number, HEIGHT, WIDTH), dtype=np.float32)


def neighbours(row: int, column: int) -> list[tuple[int, int]]:
    """The eight neighbours at each distance; beyond the border, the nearest pixel."""
    offsets = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0)]
    return [
        (min(max(row + d * r, 0), HEIGHT - 1), min(max(column + d * c, 0), WIDTH - 1))
        for d in DILATIONS
        for r, c in offsets
    ]


def by_definition(values: np.ndarray) -> np.ndarray:
    """Araslanov and Roth's equations 6 and 7, as their code computes them."""
    x = image().astype(float) / 255
    weights = {}
    for row, column in np.ndindex(HEIGHT, WIDTH):
        around = [x[at] for at in neighbours(row, column)]
        # Their 3 x 3 kernel includes the pixel itself, once per distance.
        sigma = np.std([*around, *[x[row, column]] * len(DILATIONS)], axis=0, ddof=1)
        k = np.array([np.mean(-np.abs(x[row, column] - other) / (1e-8 + 0.1 * sigma)) for other in around])
        weights[row, column] = np.exp(k) / np.exp(k).sum()
    m = values.astype(float)
    for _ in range(NUM_ITERATIONS):
        m = np.array(
            [
                [weights[r, c] @ np.array([m[at] for at in neighbours(r, c)]) for c in range(WIDTH)]
                for r in range(HEIGHT)
            ]
        )
    return m


def test_refinement_equals_the_definition() -> None:
    for found, values in zip(refine_maps(image(), probabilities()), probabilities(), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, by_definition(values), rtol=1e-4)


def test_a_mask_and_its_complement_stay_complementary() -> None:
    """Two labels and a single foreground probability are the same."""
    (foreground,) = probabilities(1)
    refined = refine_labels(image(), np.stack([1 - foreground, foreground]), "pamr")
    np.testing.assert_allclose(refined.sum(axis=0), 1, rtol=1e-5)
    np.testing.assert_array_equal(refined[1], next(refine_masks(image(), [foreground], "pamr")))


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_a_constant_stays_and_a_uniform_image_is_no_error(value: float) -> None:
    constant = np.full((HEIGHT, WIDTH), value, np.float32)
    for pixels in (image(), np.full((HEIGHT, WIDTH, 3), 7, np.uint8)):
        np.testing.assert_allclose(next(refine_maps(pixels, [constant])), value, rtol=1e-5)


def test_refinement_follows_the_images_edges() -> None:
    """A square prediction of the disc becomes the disc."""
    disc = image()[..., 0] > 100
    guess = np.full((HEIGHT, WIDTH), 0.1, np.float32)
    guess[4:9, 6:11] = 0.9
    guess[0, 0] = 0.9
    wrong = ((guess > 0.5) != disc).sum()
    assert ((next(refine_maps(image(), [guess])) > 0.5) != disc).sum() < wrong / 2
