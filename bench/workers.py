"""Measure the memory of the processes that load batches, for few and for many expressions (Linux only).

python bench/workers.py [--expressions 310000] [--workers 4]
The images are twenty drawn ones under other names. Memory is that of the workers while they make batches: the median of
their own pages and their shares of common ones; and the peak of the resident size, common pages included.
"""

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from inputs import phrase, save_photographs, smooth_map
from prepare import children, memory
from stages import paper_run, records_of

from tseg.records import encode_mask
from tseg.training.batches import load_batches
from tseg.training.run import build_batches

PER_IMAGE, NUM_DRAWN, NUM_FEW, NUM_BATCHES = 5, 20, 1000, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expressions", type=int, default=310_000)
    parser.add_argument("--workers", type=int, default=4)
    arguments = parser.parse_args()
    print(
        f"| supervision | {NUM_FEW:,} expressions, MB a worker | {arguments.expressions:,} expressions, MB a worker |"
    )
    print("| --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn = save_photographs(folder / "drawn", NUM_DRAWN)
        tables = [make_records(folder / str(number), drawn, number) for number in (NUM_FEW, arguments.expressions)]
        for supervision in ("weak", "full"):
            few, many = (memory_of_worker(records, supervision, arguments.workers) for records in tables)
            print(
                f"| {supervision} | {few[0]:.0f} (peak {few[1]:.0f}) | {many[0]:.0f} (peak {many[1]:.0f}) |", flush=True
            )


def make_records(folder: Path, drawn: list[Path], number: int) -> pd.DataFrame:
    """Records with masks of `number` expressions."""
    folder.mkdir()
    paths = [folder / f"{index:08}.jpg" for index in range(number // PER_IMAGE)]
    for index, path in enumerate(paths):
        os.link(drawn[index % len(drawn)], path)
    generator = np.random.default_rng(0)
    masks = [encode_mask(smooth_map(generator) > 0.7) for _ in range(100)]
    expressions = {path.stem: [f"{phrase(generator)} {index}" for index in range(PER_IMAGE)] for path in paths}
    records = records_of(paths, expressions).to_pandas()
    return records.assign(mask=generator.choice(masks, len(records)))


def memory_of_worker(records: pd.DataFrame, supervision: str, num_workers: int) -> tuple[float, float]:
    """The median of the memory of a worker, and the largest peak of its resident size, in MB."""
    run = paper_run().model_copy(update={"supervision": supervision})
    batches = build_batches(run, 0, records, None)
    sizes: list[float] = []
    peaks: list[float] = []
    for _ in load_batches(batches, 0, NUM_BATCHES * num_workers, num_workers):
        workers = children(os.getpid())
        sizes += [memory(pid, "Pss") for pid in workers]
        peaks += [memory(pid, "VmHWM") for pid in workers]
    return median(sizes[len(sizes) // 2 :]), max(peaks)


if __name__ == "__main__":
    main()
