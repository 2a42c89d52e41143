"""Global pooling: from patch-text similarities S to image-level scores z (section 3.2).

Everything is a pure function of S, float32 (B, N, L): B images, N patches, L expressions. Scores are (B, L). A
function decorated with `@pooling` is a pooling, under its own name. torch is not imported here: tensors bring their
methods along, and the workflow reads the registry in no time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND_SIMILARITY = 0.0
"""s_bg, the background's constant similarity (below eq. 5)."""

SMALLEST_SIZE = 2.0**-126
"""The smallest normal float32: a mask so small that its size rounds to 0 counts as this large."""

WEIGHTING = {"epsilon", "size_lambda", "size_power"}
"""What a weighted pooling is told by name."""


class Pooling(NamedTuple):
    """A way to score, and the masks that go with it."""

    score: Callable[..., Tensor]
    """z (B, L) of S (B, N, L); takes `WEIGHTING` by name iff `weighted`."""
    masks: Callable[[Tensor], Tensor] | None
    """m of S, (..., L) to (..., L); None: masks come from normalised activations, as GAP's and GMP's."""
    exclusive: bool
    """Whether the masks of a patch and its background sum to 1."""
    weighted: bool
    """Whether `score` is a weighted sum with a size term (eq. 8)."""


POOLINGS: dict[str, Pooling] = {}
"""Every pooling by its name, in the order of definition."""


def pooling(
    score: Callable[..., Tensor] | None = None,
    *,
    masks: Callable[[Tensor], Tensor] | None = None,
    exclusive: bool = False,
) -> Any:
    """Enter `score` into `POOLINGS` under its own name and return it; decorates with or without arguments."""
    if score is None:
        return partial(pooling, masks=masks, exclusive=exclusive)
    parameters = signature(score).parameters
    by_name = {name for name, parameter in parameters.items() if parameter.kind is Parameter.KEYWORD_ONLY}
    assert by_name in (set(), WEIGHTING), f"a pooling is told {sorted(WEIGHTING)} by name or nothing"
    assert score.__name__ not in POOLINGS, f"there is a pooling {score.__name__} already"
    POOLINGS[score.__name__] = Pooling(score, masks, exclusive, weighted=bool(by_name))
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

    With the background's own share, 1 - sum_j m_ij, the masks of a patch sum to 1.
    """
    # The expression's share among the expressions, times the share that all of them take from the background.
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

    Finite for any mask, as is its gradient.
    """
    size = masks.mean(dim=1)
    # With lambda = 0 the logarithm of an empty mask, and its slope, would be infinite.
    return (1 - size) ** size_power * (size_lambda + size).clamp(min=SMALLEST_SIZE).log()


def weighted_score(
    similarities: Tensor, masks: Tensor, epsilon: float, size_lambda: float, size_power: float
) -> Tensor:
    """z = z_gwp + z_size (eq. 8)."""
    return gwp(similarities, masks, epsilon) + size_penalty(masks, size_lambda, size_power)


@pooling(masks=spa_masks, exclusive=True)
def spa(similarities: Tensor, *, epsilon: float, size_lambda: float, size_power: float) -> Tensor:
    """Scores (eq. 8) by single-label patch assignment, the rival."""
    return weighted_score(similarities, spa_masks(similarities), epsilon, size_lambda, size_power)


@pooling(masks=mpa_masks)
def mpa(similarities: Tensor, *, epsilon: float, size_lambda: float, size_power: float) -> Tensor:
    """Scores (eq. 8) by multi-label patch assignment, the paper's own."""
    return weighted_score(similarities, mpa_masks(similarities), epsilon, size_lambda, size_power)
