"""Where a map of similarities becomes a mask: rules that read the threshold off the map itself, without any label.

The paper cuts at s > 0 (`FIXED`). A model that is never shown a mask may place that level badly, although the order of
its similarities is good. Every other rule is a pure function of one map, float32 (h, w), of the similarities of an
expression to the patches of an image; the returned threshold takes the place of the background's similarity s_bg = 0 in
equations 5 and 6. `@rule` registers a function under its own name. A new rule also needs its name in
`tseg.settings.schema.LabelFreeRule`.

ASSUME: rules read patches, not interpolated pixels, which blur the two sides that Otsu's rule separates.
"""

from collections.abc import Callable

import numpy as np

FIXED = "fixed"
"""The paper's rule, s > 0 (section 3.3); for GAP and GMP, psa's constant background."""

ORACLE = "oracle"
"""The threshold at full size that gives a mask its true area: a yardstick for the order of similarities, no result, and
no upper bound either, as another area may overlap the true mask better."""

RELATIVE_SHARE = 0.2
"""Share of the maximum in `relative`; psa's background of max-normalised activations."""

Rule = Callable[[np.ndarray], float]

RULES: dict[str, Rule] = {}
"""Every rule without labels by name, in order of definition."""


def rule(function: Rule) -> Rule:
    """Register `function` in `RULES` under its own name and return it."""
    RULES[function.__name__] = function
    return function


@rule
def halfway(similarities: np.ndarray) -> float:
    """Halfway between the smallest and the largest similarity."""
    return float(similarities.min() + similarities.max()) / 2


@rule
def relative(similarities: np.ndarray) -> float:
    """`RELATIVE_SHARE` of the largest similarity; a map without positive similarity has an empty mask."""
    return RELATIVE_SHARE * max(0.0, float(similarities.max()))


@rule
def otsu(similarities: np.ndarray) -> float:
    """Otsu's threshold: the two sides of it have means that differ most, weighted by their sizes (1979).

    All splits of the sorted similarities are tried; the threshold lies halfway between the values at the best one.
    """
    values = np.sort(similarities, axis=None).astype(np.float64)
    below = np.arange(1, len(values))
    sums = values.cumsum()
    between = (sums[:-1] * len(values) - sums[-1] * below) ** 2 / (below * (len(values) - below))
    # Equal values are never split.
    between[values[1:] == values[:-1]] = -1
    if len(between) == 0 or between.max() < 0:
        return float(values[-1])
    best = int(between.argmax())
    return float(values[best] + values[best + 1]) / 2


def cut_at_area(similarities: np.ndarray, area: int) -> float:
    """The threshold above which exactly `area` pixels lie, or fewer if similarities are equal there."""
    values = similarities.ravel()
    if area >= len(values):
        return float("-inf")
    return float(np.partition(values, len(values) - area - 1)[len(values) - area - 1])
