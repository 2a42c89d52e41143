"""The losses: each a scalar to be minimised."""

from torch import Tensor
from torch.nn.functional import multilabel_soft_margin_loss


def classification_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Multi-label soft margin of scores z and targets zbar, both (B, L) (section 3.3, L_cls); the mean over pictures.

    ASSUME: averaged over expressions, where the paper writes a sum, so that the gradient does not grow with how many
    distinct expressions a batch happens to hold; it is what the library's loss does and what refs. [2, 3] train with.
    """
    return multilabel_soft_margin_loss(scores, targets)
