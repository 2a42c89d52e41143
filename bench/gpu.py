"""Measure the cost of the tables on this machine's GPU: seconds per iteration, and from them GPU-hours per table.

python bench/gpu.py [--configfile config/paper.yaml] [--precision bfloat16] [--compile]
python bench/gpu.py --run phrasecut-mpa [--iterations 2]     one run only
The images are noise in GPU memory: loading, prediction and CRF are not measured. Iterations are timed together, as the
training loop does not wait for each. The limit is the rate of a large bfloat16 product, measured in the same process.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cost import EXPRESSION, petaflop_of, without_weights
from inputs import noise

from tseg.model.device import compute_in, select_device
from tseg.settings.plan import Plan
from tseg.settings.run_schema import RunSettings
from tseg.settings.schema import LanguageModelSettings
from tseg.training.loop import training_step
from tseg.training.run import build_model, build_objective, build_optimizer

NUM_WARMUPS = 5
SIDE = 8192
"""Rows and columns of the product that is the limit."""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SECONDS: dict[tuple[Any, ...], float] = {}
"""What the time of an iteration depends on, to the seconds of one that was measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", type=Path, default=Path("config/paper.yaml"))
    parser.add_argument("--precision", choices=["float32", "tf32", "bfloat16"], help="Default: as configured")
    parser.add_argument("--compile", action="store_true", help="Let torch compile the encoders. Default: as configured")
    parser.add_argument("--run", help="Time one run, and print no table")
    parser.add_argument("--iterations", type=int, default=30, help="Iterations that are timed together")
    arguments = parser.parse_args()
    plan = Plan.read([arguments.configfile])
    select_device(DEVICE, torch.get_num_threads())  # as `tseg train` does: deterministic algorithms
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "no GPU, this is the processor"
    limit = limit_of_products()
    print(f"{name}, torch {torch.__version__}, a product in bfloat16: {limit:.1f} TFLOP/s", flush=True)
    changed: dict[str, Any] = {"precision": arguments.precision} if arguments.precision else {}
    changed |= {"compile": True} if arguments.compile else {}

    def hours_of(run: RunSettings) -> float:
        """Hours of a training at the measured time per iteration."""
        # The embedding size hardly matters: measure only one.
        model = without_weights(run.model).model_copy(update={"embed_dim": 1024})
        training = run.training.model_copy(update=changed)
        cost = (model.model_dump_json(), run.supervision, run.pooling.name if run.pooling else None, training.precision)
        cost += (training.compile, training.resolution, training.batch_size, training.expressions_per_image)
        if cost not in SECONDS:
            measured = run.model_copy(update={"model": model, "training": training})
            SECONDS[cost] = seconds_of_step(measured, limit, arguments.iterations)
        return run.training.iterations * SECONDS[cost] / 3600

    if arguments.run:
        if arguments.run not in plan.runs:
            parser.error(f"there is no run {arguments.run!r}; choose from {', '.join(plan.runs)}")
        print(f"{arguments.run}: {hours_of(plan.runs[arguments.run]):.1f} GPU-hours")
        return
    tables = {table: plan.table_runs(table) for table in plan.tables}
    tables["all, shared runs once"] = {name: run for runs in tables.values() for name, run in runs.items()}
    hours = {table: sum(map(hours_of, runs.values())) for table, runs in tables.items()}
    print("| Table | Trainings | GPU-hours |\n| --- | ---: | ---: |")
    for table, runs in tables.items():
        print(f"| {table} | {len(runs)} | {hours[table]:.1f} |")


def limit_of_products() -> float:
    """The rate, in 10^12 operations per second, of a product of two large matrices in bfloat16."""
    side = SIDE if DEVICE == "cuda" else SIDE // 8
    one, other = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds_of(lambda: one @ other, 20) / 1e12


def seconds_of_step(run: RunSettings, limit: float, number: int) -> float:
    """Mean seconds of an iteration: forward, loss, backward, optimizer."""
    settings, text_encoder = run.training, run.model.text_encoder
    if isinstance(text_encoder, LanguageModelSettings):
        num_expressions = settings.batch_size * settings.expressions_per_image
        expressions = [f"{EXPRESSION} {number}" for number in range(num_expressions)]
    else:
        expressions = text_encoder.classes
    model = build_model(run.model, expressions).to(DEVICE).train()
    if settings.compile:
        model.compile_encoders()
    objective, optimizer = build_objective(run, expressions), build_optimizer(settings, model)
    batch = noise(expressions, settings.batch_size, settings.resolution).to(torch.device(DEVICE))
    precision = compute_in(settings.precision)
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(lambda: training_step(model, batch, objective, optimizer, precision), number)
    memory = torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else 0.0
    teraflops = petaflop_of(run) * 1000 / run.training.iterations / seconds
    kind = f"{run.supervision} {run.pooling.name if run.pooling else ''}".strip()
    print(
        f"{run.model.image_encoder.name}, {kind}, {settings.precision}{', compiled' * settings.compile}, "
        f"{settings.batch_size} images of {settings.resolution} pixels, {len(expressions)} expressions: "
        f"{1000 * seconds:.0f} ms, {1 / seconds:.1f} iterations a second, {teraflops:.1f} TFLOP/s "
        f"({teraflops / limit:.0%} of the limit), {memory:.1f} GiB",
        flush=True,
    )
    return seconds


def seconds_of(step: Callable[[], Any], number: int) -> float:
    """Mean seconds of a step among `number` that follow each other, after some that do not count."""
    for _ in range(min(NUM_WARMUPS, number)):
        step()
    wait()
    start = time.perf_counter()
    for _ in range(number):
        step()
    wait()
    return (time.perf_counter() - start) / number


def wait() -> None:
    """Wait until the GPU has done what it was given."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
