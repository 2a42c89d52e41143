"""Global pooling: from patch-text similarities S to image-level scores z (section 3.2).

Everything is a pure function of S, float (B, N, L): B pictures, N patches, L expressions. Scores are (B, L).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

BACKGROUND = 0.0
"""s_bg, the background's constant similarity (below eq. 5)."""


def gap(similarities: Tensor) -> Tensor:
    """z_j = 1/N sum_i s_ij: global average pooling (eq. 2)."""
    return similarities.mean(dim=1)


def gmp(similarities: Tensor) -> Tensor:
    """z_j = max_i s_ij: global max pooling (eq. 3)."""
    return similarities.amax(dim=1)


def spa_masks(similarities: Tensor) -> Tensor:
    """m_ij = exp(s_ij) / (exp(s_bg) + sum_k exp(s_ik)): single-label patch assignment (eq. 5), (..., L) to (..., L).

    With the background's own share, 1 - sum_j m_ij, the masks of a patch sum to 1.
    """
    background = torch.full_like(similarities[..., :1], BACKGROUND)
    return torch.cat([background, similarities], dim=-1).softmax(dim=-1)[..., 1:]


def mpa_masks(similarities: Tensor) -> Tensor:
    """m_ij = exp(s_ij) / (exp(s_bg) + exp(s_ij)): multi-label patch assignment (eq. 6), (..., L) to (..., L).

    The mask of an expression does not depend on the other expressions.
    """
    return torch.sigmoid(similarities - BACKGROUND)


def gwp(similarities: Tensor, masks: Tensor, epsilon: float) -> Tensor:
    """z_j = sum_i w_ij s_ij with w_ij = m_ij / (sum_i m_ij + epsilon): global weighted pooling (eq. 4).

    `epsilon` is in units of patches. Masks of ones and epsilon = 0 give `gap`.
    """
    return (masks * similarities).sum(dim=1) / (masks.sum(dim=1) + epsilon)


def size_penalty(masks: Tensor, size_lambda: float, size_power: float) -> Tensor:
    """z_j = (1 - mbar_j)^p log(lambda + mbar_j), mbar_j = 1/N sum_i m_ij: the size term (eq. 7)."""
    size = masks.mean(dim=1)
    return (1 - size) ** size_power * torch.log(size_lambda + size)


def assigned_score(
    similarities: Tensor,
    *,
    assign: Callable[[Tensor], Tensor],
    epsilon: float,
    size_lambda: float,
    size_power: float,
) -> Tensor:
    """z = z_gwp + z_size (eq. 8), with the masks that `assign` makes of the similarities."""
    masks = assign(similarities)
    return gwp(similarities, masks, epsilon) + size_penalty(masks, size_lambda, size_power)


POOLINGS: dict[str, Callable[..., Tensor]] = {
    "gmp": gmp,
    "gap": gap,
    "spa": partial(assigned_score, assign=spa_masks),
    "mpa": partial(assigned_score, assign=mpa_masks),
}
"""Name to scoring function; `spa` and `mpa` also take epsilon, size_lambda and size_power by name."""
