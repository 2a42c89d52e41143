"""Timings of the costly steps at the default scale, on one thread: medians over repetitions, milliseconds.

python bench/steps.py            a training step, and the CRF of an image's expressions
Compare two versions on one machine in one run, and quote ratios: machines are noisy.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml

from tseg.inference.crf import PRESETS, refine
from tseg.model.pooling import POOLINGS
from tseg.model.text_encoder import learn_wordpiece
from tseg.model.tseg import build_tseg
from tseg.settings.experiments import Experiments
from tseg.settings.runs import make_run
from tseg.settings.schema import PoolingSettings, Settings
from tseg.settings.validation import parse
from tseg.training.losses import classification_loss

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


def training_step(
    settings: Settings,
    pooling: PoolingSettings,
    varied: dict[str, str],
    images: torch.Tensor,
    expressions: list[str],
    targets: torch.Tensor,
) -> Callable[[], object]:
    """One iteration of weak training at the settings, batches aside."""
    architecture = make_run(settings, "phrasecut", "weak", pooling, varied).model.model_dump()
    model = build_tseg(**architecture, tokenizer=learn_wordpiece(expressions, 512))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    score = partial(POOLINGS[pooling.name].score, **pooling.options)

    def step() -> None:
        optimizer.zero_grad()
        classification_loss(score(model(images, expressions)), targets).backward()
        optimizer.step()

    return step


def main() -> None:
    torch.set_num_threads(1)
    settings = parse(Settings, yaml.safe_load(Path("config/config.yaml").read_text()), "config/config.yaml")
    generator = np.random.default_rng(0)
    expressions = [" ".join(generator.choice(WORDS, 4)) for _ in range(NUM_EXPRESSIONS)]
    images = torch.randn(16, 3, *[settings.training.weak.resolution] * 2)
    targets = (torch.rand(16, NUM_EXPRESSIONS) < 0.1).float()
    experiments = parse(Experiments, yaml.safe_load(Path(settings.experiments).read_text()), settings.experiments)
    for method in experiments.methods.values():
        step = training_step(settings, method, {}, images, expressions, targets)
        print(f"training step, {method.name}: {median_milliseconds(step, 30):.1f} ms")
    for encoder in settings.image_encoders:
        step = training_step(
            settings, experiments.methods["GAP"], {"model.image_encoder": encoder}, images, expressions, targets
        )
        print(f"training step, gap, {encoder}: {median_milliseconds(step, 10):.1f} ms")

    for height, width in ((128, 128), (480, 640)):
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        unary = generator.random((4, height, width), dtype=np.float32)
        for preset in PRESETS:
            milliseconds = median_milliseconds(partial(refine, image, unary, preset), 3)
            print(f"CRF {preset}, {width} x {height}, 4 expressions: {milliseconds:.0f} ms")


if __name__ == "__main__":
    main()
