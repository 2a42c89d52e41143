"""Rules that read a threshold off a map, each against its definition."""

from typing import get_args

import numpy as np
import pytest

from tseg.inference.thresholds import FIXED, ORACLE, RULES, cut_at_area, halfway, otsu, relative
from tseg.settings.schema import ThresholdRule


def random_map(shift: float = 0.0) -> np.ndarray:
    """A bright disc on a dark ground."""
    rows, columns = np.mgrid[:23, :31]
    disc = (rows - 9) ** 2 + (columns - 12) ** 2 < 40
    noise = np.random.default_rng(0).normal(size=disc.shape)
    return (np.where(disc, 4, -3) + noise + shift).astype(np.float32)


def test_the_settings_name_every_rule() -> None:
    assert set(get_args(ThresholdRule)) == {FIXED, *RULES, ORACLE}


@pytest.mark.parametrize("shift", [-20.0, 0.0, 7.5])
def test_halfway_is_the_middle_of_the_range(shift: float) -> None:
    assert halfway(np.array([[2, -1], [0, 5]], np.float32) + shift) == 2 + shift


def test_relative_is_psas_share_of_the_maximum_and_never_negative() -> None:
    assert relative(np.array([[-9.0, 5.0]], np.float32)) == 1
    assert relative(np.array([[-9.0, -5.0]], np.float32)) == 0


@pytest.mark.parametrize("shift", [-20.0, 0.0])
def test_otsu_has_the_largest_variance_between_its_sides(shift: float) -> None:
    """Otsu's criterion w0 w1 (mu0 - mu1)^2, computed for a threshold between every two neighbouring values."""
    values = np.unique(random_map(shift).astype(float))

    def variance(threshold: float) -> float:
        above = random_map(shift) > threshold
        means = random_map(shift)[above].mean(dtype=float), random_map(shift)[~above].mean(dtype=float)
        return above.mean() * (1 - above.mean()) * (means[0] - means[1]) ** 2

    candidates = (values[1:] + values[:-1]) / 2
    best = candidates[np.argmax([variance(threshold) for threshold in candidates])]
    assert otsu(random_map(shift)) == pytest.approx(best, abs=1e-5)


def test_otsu_separates_two_values() -> None:
    assert otsu(np.array([[1, 1, 1], [1, 5, 5]], np.float32)) == 3


@pytest.mark.parametrize("rule", ["halfway", "otsu"])
def test_the_mask_moves_with_the_map(rule: str) -> None:
    """What s > 0 does not: a constant added to all similarities changes nothing."""
    expected = random_map() > RULES[rule](random_map())
    assert expected.any()
    np.testing.assert_array_equal(random_map(-50) > RULES[rule](random_map(-50)), expected)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("value", [-3.0, 0.0])
def test_a_constant_map_without_positive_similarity_has_an_empty_mask(rule: str, value: float) -> None:
    constant = np.full((4, 5), value, np.float32)
    assert not (constant > RULES[rule](constant)).any()
    assert not (constant[:1, :1] > RULES[rule](constant[:1, :1])).any()


@pytest.mark.parametrize("area", [0, 1, 100, 23 * 31 - 1, 23 * 31])
def test_the_oracle_leaves_the_largest_values(area: int) -> None:
    mask = random_map() > cut_at_area(random_map(), area)
    assert mask.sum() == area
    assert set(random_map()[mask]) == set(np.sort(random_map(), axis=None)[::-1][:area])


def test_the_oracle_takes_all_or_none_of_equal_values() -> None:
    values = np.array([[1, 2, 2, 3]], np.float32)
    assert [int((values > cut_at_area(values, area)).sum()) for area in range(5)] == [0, 1, 1, 3, 4]
