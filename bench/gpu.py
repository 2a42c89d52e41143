"""What the tables cost at a scale on this machine's GPU: seconds of an iteration measured, hours of a table from them.

python bench/gpu.py [--configfile config/paper.yaml] [--precision bfloat16]
Images are noise that lies on the GPU already: loading them is not measured, nor are prediction and CRF.
"""

import argparse
import statistics
import time
from functools import cache, partial
from pathlib import Path

import torch
import yaml
from cost import EXPRESSION, read

from tseg.model.pooling import POOLINGS
from tseg.model.text_encoder import learn_wordpiece
from tseg.model.tseg import build_tseg
from tseg.settings.experiments import Experiments, LabelSets, runs_of, table_cells
from tseg.settings.schema import RunSettings, Settings
from tseg.training import objectives
from tseg.training.batches import Batch
from tseg.training.targets import identity_targets

NUM_WARMUPS, NUM_TIMED = 3, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", type=Path, default=Path("config/paper.yaml"))
    parser.add_argument("--precision", choices=["float32", "bfloat16"], help="in place of the configuration's")
    arguments = parser.parse_args()
    settings = read(Settings, arguments.configfile)
    label_sets = read(LabelSets, Path(settings.label_sets))
    tables = table_cells(read(Experiments, Path(settings.experiments)), settings, label_sets)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {arguments.precision or 'as configured'}")
    everything: dict[str, RunSettings] = {}
    hours = {}
    for name, cells in tables.items():
        runs = runs_of(cells)
        everything |= runs
        hours[name] = len(runs), sum(hours_of(run, arguments.precision) for run in runs.values())
    hours["all, shared runs once"] = (
        len(everything),
        sum(hours_of(run, arguments.precision) for run in everything.values()),
    )
    print("| Table | Trainings | GPU-hours |\n| --- | ---: | ---: |")
    for name, (num_runs, of_table) in hours.items():
        print(f"| {name} | {num_runs} | {of_table:.1f} |")


def hours_of(run: RunSettings, precision: str | None) -> float:
    """Hours of a training whose every iteration takes as long as the measured ones."""
    return run.training.iterations * seconds_of_step(*_alike(run, precision)) / 3600


def _alike(run: RunSettings, precision: str | None) -> tuple[str, str, str, int, int, int]:
    """What an iteration's time depends on."""
    pooling = run.pooling.name if run.pooling else "mpa"
    training = run.training
    # The embedding's size hardly matters: one is enough to measure.
    model = run.model.model_copy(update={"embed_dim": 1024})
    per_image = training.expressions_per_image
    return (
        model.model_dump_json(),
        f"{run.supervision} {pooling}",
        precision or training.precision,
        training.resolution,
        training.batch_size,
        per_image,
    )


@cache
def seconds_of_step(model: str, kind: str, precision: str, resolution: int, batch_size: int, per_image: int) -> float:
    """Median seconds of an iteration: forward, loss, backward, AdamW."""
    described = yaml.safe_load(model)
    described["image_encoder"]["weights"] = None
    text = described["text_encoder"]
    if is_language := "hidden_size" in text:
        text["weights"] = None
    built = (
        build_tseg(**described, tokenizer=learn_wordpiece([EXPRESSION], 100) if is_language else None).cuda().train()
    )
    expressions = text["classes"] if not is_language else [f"{EXPRESSION} {i}" for i in range(batch_size * per_image)]
    batch = _batch(expressions, batch_size, resolution)
    supervision, pooling = kind.split()
    weights = {"epsilon": 1.0, "size_lambda": 0.01, "size_power": 5.0} if pooling in ("spa", "mpa") else {}
    score = partial(POOLINGS[pooling].score, **weights)
    objective = {
        "weak": partial(objectives.weak, score=score, targets=identity_targets),
        "full": objectives.full,
        "boxes": objectives.boxes,
    }[supervision]
    optimizer = torch.optim.AdamW(built.parameters(), fused=True)
    seconds = []
    torch.cuda.reset_peak_memory_stats()
    for _ in range(NUM_WARMUPS + NUM_TIMED):
        torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast("cuda", getattr(torch, precision), enabled=precision != "float32"):
            similarities = built(batch.images, batch.expressions)
        optimizer.zero_grad()
        objective(similarities, batch).backward()
        optimizer.step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[NUM_WARMUPS:])
    memory = torch.cuda.max_memory_allocated() / 2**30
    print(
        f"{described['image_encoder']['name']}, {kind}, {precision}, {batch_size} images of {resolution} pixels, "
        f"{len(expressions)} expressions: {1000 * median:.0f} ms, {memory:.1f} GiB"
    )
    return median


def _batch(expressions: list[str], batch_size: int, resolution: int) -> Batch:
    """Noise, asked for every expression; a pair of each image and each of its expressions, with half a mask."""
    per_image = max(1, len(expressions) // batch_size)
    pairs = torch.tensor([(i // per_image, i) for i in range(batch_size * per_image)]) % torch.tensor(
        [batch_size, len(expressions)]
    )
    masks = torch.zeros(len(pairs), resolution, resolution, dtype=torch.bool)
    masks[:, : resolution // 2] = True
    return Batch(
        torch.randn(batch_size, 3, resolution, resolution).cuda(),
        expressions,
        [frozenset(expressions[i * per_image : (i + 1) * per_image]) for i in range(batch_size)],
        pairs,
        masks,
        torch.ones_like(masks),
    )


if __name__ == "__main__":
    main()
