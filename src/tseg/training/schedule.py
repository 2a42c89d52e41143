"""Learning rates (section 4.2, "Optimization")."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def poly_schedule(optimizer: Optimizer, iterations: int, power: float) -> LambdaLR:
    """gamma = gamma_0 (1 - n_iter / n_total)^power, the poly decay of DeepLab."""
    return LambdaLR(optimizer, lambda iteration: (1 - iteration / iterations) ** power)
