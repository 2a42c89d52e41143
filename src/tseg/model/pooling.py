"""Global pooling: from patch-text similarities S to image-level scores z (section 3.2).

Every function here is pure. S is float32 (B, N, L): B images, N patches, L expressions. Scores are (B, L). `@pooling`
registers a function under its own name; its keyword-only parameters are the options of the pooling, and their
annotations are checked when a configuration sets them. This module does not import torch, so that planning is fast.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import NonNegativeFloat

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND_SIMILARITY = 0.0
"""s_bg, the background's constant similarity (below eq. 5)."""

SMALLEST_SIZE = 2.0**-126
"""The smallest normal float32, the lower bound of a mask's size in the logarithm of eq. 7."""


class Pooling(NamedTuple):
    """A score function and the masks that belong to it."""

    score: Callable[..., Tensor]
    """Maps S (B, N, L) to z (B, L); its keyword-only parameters are the options."""
    masks: Callable[[Tensor], Tensor] | None
    """Maps S to m, (..., L) to (..., L). None: masks are normalised activations, as for GAP and GMP."""
    exclusive: bool
    """Whether each patch's masks and background sum to 1, as for SPA."""


POOLINGS: dict[str, Pooling] = {}
"""Every pooling by name, in order of definition."""


def pooling(
    score: Callable[..., Tensor] | None = None,
    *,
    masks: Callable[[Tensor], Tensor] | None = None,
    exclusive: bool = False,
) -> Any:
    """Register `score` in `POOLINGS` under its own name and return it. Use as `@pooling` or `@pooling(masks=...)`."""
    if score is None:
        return partial(pooling, masks=masks, exclusive=exclusive)
    assert score.__name__ not in POOLINGS, f"the pooling {score.__name__} exists already"
    POOLINGS[score.__name__] = Pooling(score, masks, exclusive)
    return score


@pooling
def gmp(similarities: Tensor) -> Tensor:
    """z_j = max_i s_ij: global max pooling (eq. 3)."""
    return similarities.amax(dim=1)


@pooling
def gap(similarities: Tensor) -> Tensor:
    """z_j = 1/N sum_i s_ij: global average pooling (eq. 2)."""
    return similarities.mean(dim=1)


def spa_masks(similarities: Tensor) -> Tensor:
    """m_ij = exp(s_ij) / (exp(s_bg) + sum_k exp(s_ik)): single-label patch assignment (eq. 5), (..., L) to (..., L).

    The background has the rest, 1 - sum_j m_ij.
    """
    # The share among the expressions, times the share of all expressions against the background.
    foreground = (similarities.logsumexp(dim=-1, keepdim=True) - BACKGROUND_SIMILARITY).sigmoid()
    return similarities.softmax(dim=-1) * foreground


def mpa_masks(similarities: Tensor) -> Tensor:
    """m_ij = exp(s_ij) / (exp(s_bg) + exp(s_ij)): multi-label patch assignment (eq. 6), (..., L) to (..., L).

    The mask of an expression does not depend on the other expressions.
    """
    return (similarities - BACKGROUND_SIMILARITY).sigmoid()


def gwp(similarities: Tensor, masks: Tensor, epsilon: float) -> Tensor:
    """z_j = sum_i w_ij s_ij with w_ij = m_ij / (sum_i m_ij + epsilon): global weighted pooling (eq. 4).

    `epsilon` is in units of patches. Masks of ones and epsilon = 0 give `gap`.
    """
    return (masks * similarities).sum(dim=1) / (masks.sum(dim=1) + epsilon)


def size_penalty(masks: Tensor, size_lambda: float, size_power: float) -> Tensor:
    """z_j = (1 - mbar_j)^p log(lambda + mbar_j), mbar_j = 1/N sum_i m_ij: the size term (eq. 7).

    The value and its gradient are finite for every mask.
    """
    size = masks.mean(dim=1)
    # Without the clamp, lambda = 0 and an empty mask give log 0.
    return (1 - size) ** size_power * (size_lambda + size).clamp(min=SMALLEST_SIZE).log()


def weighted_score(
    similarities: Tensor, masks: Tensor, epsilon: float, size_lambda: float, size_power: float
) -> Tensor:
    """z = z_gwp + z_size (eq. 8)."""
    return gwp(similarities, masks, epsilon) + size_penalty(masks, size_lambda, size_power)


@pooling(masks=spa_masks, exclusive=True)
def spa(
    similarities: Tensor,
    *,
    epsilon: NonNegativeFloat = 1.0,
    size_lambda: NonNegativeFloat = 0.01,
    size_power: NonNegativeFloat = 5.0,
) -> Tensor:
    """Score (eq. 8) with single-label patch assignment (SPA), the paper's baseline."""
    return weighted_score(similarities, spa_masks(similarities), epsilon, size_lambda, size_power)


@pooling(masks=mpa_masks)
def mpa(
    similarities: Tensor,
    *,
    epsilon: NonNegativeFloat = 1.0,
    size_lambda: NonNegativeFloat = 0.01,
    size_power: NonNegativeFloat = 5.0,
) -> Tensor:
    """Score (eq. 8) with multi-label patch assignment (MPA), the paper's method TSEG."""
    return weighted_score(similarities, mpa_masks(similarities), epsilon, size_lambda, size_power)
