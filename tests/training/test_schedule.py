import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler, PolynomialLR

from tseg.training.schedule import poly_schedule


def learning_rates(schedule: LRScheduler, iterations: int) -> list[float]:
    rates = []
    for _ in range(iterations):
        rates.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return [*rates, schedule.get_last_lr()[0]]


def optimizer() -> SGD:
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)


@pytest.mark.parametrize("power", [0.9, 2.0])
def test_rate_is_gamma_0_times_the_share_of_iterations_left_to_the_power(power: float) -> None:
    expected = [1e-3 * (1 - n / 40) ** power for n in range(41)]
    assert learning_rates(poly_schedule(optimizer(), 40, power, warmup=0), 40) == pytest.approx(expected, rel=1e-12)


def test_rate_is_that_of_torchs_own_polynomial_schedule() -> None:
    theirs = learning_rates(PolynomialLR(optimizer(), total_iters=40, power=0.9), 40)
    assert learning_rates(poly_schedule(optimizer(), 40, 0.9, warmup=0), 40) == pytest.approx(
        theirs, rel=1e-9, abs=1e-12
    )


def test_rate_without_decay_is_constant() -> None:
    assert set(learning_rates(poly_schedule(optimizer(), 5, 0.0, warmup=0), 4)) == {1e-3}


def test_warmup_rises_linearly_into_the_decay() -> None:
    plain = learning_rates(poly_schedule(optimizer(), 40, 0.9, warmup=0), 40)
    warmed = learning_rates(poly_schedule(optimizer(), 40, 0.9, warmup=4), 40)
    factors = [0.25, 0.5, 0.75] + [1.0] * 38
    assert warmed == pytest.approx([rate * factor for rate, factor in zip(plain, factors, strict=True)], rel=1e-12)
