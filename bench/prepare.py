"""Measure time and memory of `tseg prepare` on data sets of different sizes (Linux only).

python bench/prepare.py            drawn shapes, replicated with their images to 10,000 and 300,000 records
python bench/prepare.py FOLDER     photographs: FOLDER holds phrasecut/VGPhraseCut_v0 with its images, and
                                   coco/refer/data/refcoco with coco/images/train2014
Memory is the peak resident size in MB; processor seconds are summed over all processes.
"""

import argparse
import json
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tseg.datasets.shapes.draw import draw_shapes

PHRASECUT, REFCOCO, COCO_IMAGES = "phrasecut/VGPhraseCut_v0", "coco/refer/data/refcoco", "coco/images/train2014"
COLUMNS = ["format", "records", "processes", "seconds", "records/s", "processor seconds", "peak MB", "of a worker"]
Json = dict[str, Any]


def replicate_phrasecut(source: Path, folder: Path, num_records: int) -> Json:
    """Write `num_records` tasks, each copy with its own images; return the settings to prepare them."""
    tasks, infos = (
        json.loads((source / PHRASECUT / f"{name}.json").read_text()) for name in ("refer_train", "img_info")
    )
    used = {task["image_id"] for task in tasks}
    infos = [info for info in infos if info["image_id"] in used]

    def copies(items: list[Json]) -> Iterator[Json]:
        for copy in range(-(-num_records // len(tasks))):
            for item in items:
                names = {key: f"{copy}-{item[key]}" for key in ("image_id", "task_id") if key in item}
                yield item | names

    write_list(folder / "refer_train.json", islice(copies(tasks), num_records))
    write_list(folder / "img_info.json", copies(infos))
    for info in copies(infos):
        name = f"{info['image_id']}.jpg"
        (folder / name).symlink_to((source / PHRASECUT / "images" / name.split("-")[1]).absolute())
    return {"format": "phrasecut"}


def replicate_refcoco(source: Path, folder: Path, num_records: int) -> Json:
    """Write references with about `num_records` sentences, each copy with its own images; return the settings."""
    refs = pickle.loads((source / REFCOCO / "refs(unc).p").read_bytes())
    refs = [ref for ref in refs if ref["split"] == "train"]
    instances = json.loads((source / REFCOCO / "instances.json").read_text())
    used = {ref["image_id"] for ref in refs}
    images = [image for image in instances["images"] if image["id"] in used]
    regions = [region for region in instances["annotations"] if region["image_id"] in used]
    num_copies = -(-num_records // sum(len(ref["sentences"]) for ref in refs))

    def renumbered(item: Json, copy: int) -> Json:
        ids = ("id", "image_id", "ref_id", "ann_id", "sent_id")
        return item | {key: copy * 10**9 + item[key] for key in ids if key in item}

    def copies(items: list[Json]) -> Iterator[Json]:
        return (renumbered(item, copy) for copy in range(num_copies) for item in items)

    sentences = [
        {"sentences": [renumbered(sentence, copy) for sentence in ref["sentences"]]}
        for copy in range(num_copies)
        for ref in refs
    ]
    content = [ref | of_ref for ref, of_ref in zip(copies(refs), sentences, strict=True)]
    (folder / "refs(unc).p").write_bytes(pickle.dumps(content, protocol=2))
    copied = [image | {"file_name": f"{image['id']}-{image['file_name']}"} for image in copies(images)]
    for image in images:
        name = image["file_name"]
        (folder / name).symlink_to((source / COCO_IMAGES / name.split("-")[1]).absolute())
    write_list(folder / "instances.json", copied, '{"info": {}, "images": [', "")
    write_list(folder / "instances.json", copies(regions), '], "annotations": [', "]}", "a")
    return {"format": "refer", "split_by": "unc"}


def write_list(path: Path, items: Iterable[Json], start: str = "[", end: str = "]", mode: str = "w") -> None:
    with path.open(mode) as file:
        file.write(start)
        file.writelines(f"{', ' if index else ''}{json.dumps(item)}" for index, item in enumerate(items))
        file.write(end)


def measure(settings: Json, output: Path, threads: int) -> tuple[float, float, float, float]:
    """Run `tseg prepare`: seconds, processor seconds, peak MB of the process and of its largest worker."""
    tseg = Path(sys.executable).with_name("tseg")
    command = [tseg, "prepare", "replicated", "train", "--settings", json.dumps(settings), "--output", output]
    start, peaks = time.perf_counter(), defaultdict[int, float](float)
    processor_start = processor_seconds()
    with subprocess.Popen([*command, "--threads", str(threads)], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for pid in (process.pid, *children(process.pid)):
                peaks[pid] = max(peaks[pid], memory(pid, "VmHWM"))
            time.sleep(0.05)
    seconds = time.perf_counter() - start
    assert process.returncode == 0, "tseg prepare failed"
    own = peaks.pop(process.pid)
    return seconds, processor_seconds() - processor_start, own, max(peaks.values(), default=0.0)


def processor_seconds() -> float:
    """Processor seconds of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def children(pid: int) -> list[int]:
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # it has ended
        return []
    return [int(child) for child in " ".join(lists).split()]


def memory(pid: int, kind: str = "VmRSS") -> float:
    """Resident memory in MB, its peak ("VmHWM"), or with shared pages by share ("Pss"); 0 for an ended process."""
    try:
        lines = Path(f"/proc/{pid}/{'smaps_rollup' if kind == 'Pss' else 'status'}").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith(f"{kind}:")), 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 300_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    rows = [COLUMNS, ["---:"] * len(COLUMNS)]
    with tempfile.TemporaryDirectory() as name:
        source = options.folder or Path(name, "shapes")
        if options.folder is None:
            draw_shapes(source, sets=["phrasecut", "coco"], num_train=100, num_val=1, seed=0)
        for replicate in (replicate_phrasecut, replicate_refcoco):
            for num_records in options.records:
                folder = Path(name, f"{replicate.__name__}-{num_records}")
                folder.mkdir()
                settings = replicate(source, folder, num_records)
                settings |= {"annotations": str(folder), "images": [str(folder)], "train": "train", "evaluation": "val"}
                for threads in options.threads:
                    seconds, processor, own, worker = measure(settings, Path(name, "records.parquet"), threads)
                    speed, largest = f"{num_records / seconds:,.0f}", f"{worker:.0f}" if threads > 1 else "-"
                    times = [f"{seconds:.1f}", speed, f"{processor:.1f}"]
                    rows.append([settings["format"], f"{num_records:,}", str(threads), *times, f"{own:.0f}", largest])
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))


if __name__ == "__main__":
    main()
