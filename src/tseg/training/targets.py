"""What the scores of a batch should say (section 3.3; Table 2c)."""

from collections.abc import Sequence, Set

import torch
from torch import Tensor


def identity_targets(positives: Sequence[Set[str]], expressions: Sequence[str]) -> Tensor:
    """Ground truth zbar, float32 (B, L): 1 where picture b has exactly the expression l in its `positives`, else 0."""
    return torch.tensor([[float(expression in own) for expression in expressions] for own in positives])
