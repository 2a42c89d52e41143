"""Learning rate schedule (section 4.2, "Optimization")."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def poly_schedule(optimizer: Optimizer, iterations: int, power: float, warmup: int) -> LambdaLR:
    """gamma = gamma_0 (1 - n_iter / n_total)^power, DeepLab's poly decay.

    During the first `warmup` iterations, it is multiplied by a factor that rises linearly to 1.
    """

    def factor(iteration: int) -> float:
        return (1 - iteration / iterations) ** power * min(1, (iteration + 1) / max(1, warmup))

    return LambdaLR(optimizer, factor)
