"""Measure the cost of the tables on this machine's GPU: seconds per iteration, and from them GPU-hours per table.

python bench/gpu.py [--configfile config/paper.yaml] [--precision bfloat16]
The images are noise in GPU memory: loading, prediction and CRF are not measured.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from cost import EXPRESSION, without_weights
from inputs import noise

from tseg.settings.plan import Plan
from tseg.settings.run_schema import RunSettings
from tseg.settings.schema import LanguageModelSettings
from tseg.training.loop import training_step
from tseg.training.run import build_model, build_objective, build_optimizer

NUM_WARMUPS, NUM_TIMED = 3, 8
SECONDS: dict[tuple[str | int | None, ...], float] = {}
"""What the time of an iteration depends on, to the seconds of one that was measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", type=Path, default=Path("config/paper.yaml"))
    parser.add_argument("--precision", choices=["float32", "bfloat16"], help="Default: as configured")
    arguments = parser.parse_args()
    plan = Plan.read([arguments.configfile])
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {arguments.precision or 'as configured'}")
    tables = {table: plan.table_runs(table) for table in plan.tables}
    tables["all, shared runs once"] = {name: run for runs in tables.values() for name, run in runs.items()}
    hours = {table: sum(hours_of(run, arguments.precision) for run in runs.values()) for table, runs in tables.items()}
    print("| Table | Trainings | GPU-hours |\n| --- | ---: | ---: |")
    for table, runs in tables.items():
        print(f"| {table} | {len(runs)} | {hours[table]:.1f} |")


def hours_of(run: RunSettings, precision: str | None) -> float:
    """Hours of a training at the measured time per iteration."""
    # The embedding size hardly matters: measure only one.
    model = without_weights(run.model).model_copy(update={"embed_dim": 1024})
    training = run.training.model_copy(update={"precision": precision or run.training.precision})
    cost = (model.model_dump_json(), run.supervision, run.pooling.name if run.pooling else None, training.precision)
    cost += (training.resolution, training.batch_size, training.expressions_per_image)
    if cost not in SECONDS:
        SECONDS[cost] = seconds_of_step(run.model_copy(update={"model": model, "training": training}))
    return run.training.iterations * SECONDS[cost] / 3600


def seconds_of_step(run: RunSettings) -> float:
    """Median seconds of an iteration: forward, loss, backward, optimizer."""
    settings, text_encoder = run.training, run.model.text_encoder
    if isinstance(text_encoder, LanguageModelSettings):
        num_expressions = settings.batch_size * settings.expressions_per_image
        expressions = [f"{EXPRESSION} {number}" for number in range(num_expressions)]
    else:
        expressions = text_encoder.classes
    model = build_model(run.model, expressions).cuda().train()
    objective, optimizer = build_objective(run, expressions), build_optimizer(settings, model)
    batch = noise(expressions, settings.batch_size, settings.resolution, "cuda")
    seconds = []
    torch.cuda.reset_peak_memory_stats()
    for _ in range(NUM_WARMUPS + NUM_TIMED):
        torch.cuda.synchronize()
        start = time.perf_counter()
        training_step(model, batch, objective, optimizer, getattr(torch, settings.precision))
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[NUM_WARMUPS:])
    memory = torch.cuda.max_memory_allocated() / 2**30
    kind = f"{run.supervision} {run.pooling.name if run.pooling else ''}".strip()
    print(
        f"{run.model.image_encoder.name}, {kind}, {settings.precision}, {settings.batch_size} images of "
        f"{settings.resolution} pixels, {len(expressions)} expressions: {1000 * median:.0f} ms, {memory:.1f} GiB"
    )
    return median


if __name__ == "__main__":
    main()
