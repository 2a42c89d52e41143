"""Time the costly steps at the default scale on one thread: medians over repetitions, in milliseconds.

python bench/steps.py            a training step per method and image encoder, and the refinement of four expressions
To compare two versions, run both on the same machine at the same time and report ratios: timings are noisy.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from tseg.inference.refinement import REFINEMENTS, refine_masks
from tseg.settings.plan import Plan
from tseg.settings.run_schema import RunSettings
from tseg.settings.runs import make_run
from tseg.training.batches import Batch
from tseg.training.loop import training_step
from tseg.training.run import build_model, build_objective, build_optimizer

NUM_EXPRESSIONS = 40
WORDS = ["red", "green", "blue", "small", "large", "striped", "dotted", "circle", "star", "ring", "left of", "above"]


def median_milliseconds(step: Callable[[], object], repetitions: int) -> float:
    step()
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def weak_step(run: RunSettings, batch: Batch) -> Callable[[], object]:
    """A function that performs one training iteration of `run` on `batch`."""
    model = build_model(run.model, batch.expressions).train()
    objective, optimizer = build_objective(run, batch.expressions), build_optimizer(run.training, model)
    return partial(training_step, model, batch, objective, optimizer, torch.float32)


def refine_all(image: np.ndarray, probabilities: np.ndarray, name: str) -> None:
    for _ in refine_masks(image, probabilities, name):
        pass


def main() -> None:
    torch.set_num_threads(1)
    plan = Plan.read(["config/config.yaml"])
    generator = np.random.default_rng(0)
    expressions = [" ".join(generator.choice(WORDS, 4)) for _ in range(NUM_EXPRESSIONS)]
    side = plan.settings.training.weak.resolution
    batch = Batch(
        torch.randn(16, 3, side, side),
        expressions,
        [frozenset(generator.choice(expressions, 4)) for _ in range(16)],
    )
    for name, method in plan.experiments.methods.items():
        run = make_run(plan.settings, "phrasecut", "weak", method, {})
        print(f"training step, {name}: {median_milliseconds(weak_step(run, batch), 30):.1f} ms")
    gap = plan.experiments.methods["GAP"]
    for encoder in plan.settings.image_encoders:
        run = make_run(plan.settings, "phrasecut", "weak", gap, {"model.image_encoder": encoder})
        print(f"training step, GAP, {encoder}: {median_milliseconds(weak_step(run, batch), 10):.1f} ms")

    for height, width in ((128, 128), (480, 640)):
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        unary = generator.random((4, height, width), dtype=np.float32)
        for name in REFINEMENTS:
            milliseconds = median_milliseconds(partial(refine_all, image, unary, name), 3)
            print(f"refinement {name}, {width} x {height}, 4 expressions: {milliseconds:.0f} ms")


if __name__ == "__main__":
    main()
