"""Measure the peak memory of each command on a data set and on one ten times as large (Linux only).

python bench/memory.py [--images 300]     images of 640 x 480 pixels, with five expressions and masks each
A data set repeats twenty drawn images under other names. Memory is the peak resident size of the process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from inputs import phrase, save_photographs, smooth_map
from prepare import memory
from safetensors.torch import save_file
from stages import records_of

from tseg.model.image_encoder import build_vit
from tseg.model.tseg import save_model
from tseg.provenance import EncoderProvenance, ModelProvenance, RecordsProvenance
from tseg.records import RECORDS, encode_mask, write
from tseg.settings.run_schema import RunModelSettings
from tseg.training.run import build_model

PER_IMAGE, NUM_DRAWN, FACTOR = 5, 20, 10
ENCODER = {"name": "vit_tiny_patch16_224", "options": {"img_size": 96, "embed_dim": 64, "depth": 2, "num_heads": 2}}
VIEWS = {"kind": "whole", "resolution": 96, "scales": [1.0], "flip": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        save_photographs(root / "drawn", NUM_DRAWN)
        weights = write_weights(root)
        peaks = [
            peaks_of(commands(make_data_set(root, number), weights, root / "model.safetensors"))
            for number in (arguments.images, FACTOR * arguments.images)
        ]
    few, many = (f"{PER_IMAGE * arguments.images * factor:,} records" for factor in (1, FACTOR))
    print(f"| command | {few}, MB | {many}, MB | ratio |\n| --- | ---: | ---: | ---: |")
    for command, small in peaks[0].items():
        large = peaks[1][command]
        print(f"| {command} | {small:.0f} | {large:.0f} | {large / small:.2f} |")


def make_data_set(root: Path, number: int) -> Path:
    """Write records with masks of `number` images, and the same as a folder of pairs; return their folder."""
    folder = root / str(number)
    (folder / "images").mkdir(parents=True)
    paths = [folder / "images" / f"{index:08}.jpg" for index in range(number)]
    for index, path in enumerate(paths):
        os.link(root / "drawn" / f"{index % NUM_DRAWN:06}.jpg", path)
    generator = np.random.default_rng(0)
    expressions = {path.stem: [f"{phrase(generator)} {index}" for index in range(PER_IMAGE)] for path in paths}
    drawn = [encode_mask(smooth_map(generator) > 0.7) for _ in range(100)]
    table = records_of(paths, expressions)
    masks = pa.array(generator.choice(drawn, len(table)).tolist())
    table = table.set_column(RECORDS.get_field_index("mask"), RECORDS.field("mask"), masks)
    tags = pa.array([["c20", "i_single"]] * len(table), RECORDS.field("tags").type)
    write(
        folder / "val.parquet", table.set_column(RECORDS.get_field_index("tags"), RECORDS.field("tags"), tags), split()
    )
    pairs = [f"{path.name},{expression}" for path in paths for expression in expressions[path.stem]]
    (folder / "pairs").mkdir()
    (folder / "pairs/val.csv").write_text("\n".join(["image,phrase", *pairs]) + "\n")
    return folder


def split() -> RecordsProvenance:
    return RecordsProvenance(
        dataset="drawn", split="val", sources=[], num_images=0, num_skipped=0, published=None, classes=None
    )


def write_weights(root: Path) -> Path:
    """Write a small TSEG to model.safetensors, and the weights of its image encoder to a file, which is returned."""
    text = {"random": {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "vocabulary_size": 200}, "max_tokens": 32}
    encoder = ENCODER | {"weights": None, "drop_path": 0.0}
    model = {"image_encoder": encoder, "text_encoder": {"weights": None, "pooling": "first", "dropout": 0.0} | text}
    settings = RunModelSettings.model_validate(model | {"embed_dim": 384, "tau": 10.0})
    provenance = ModelProvenance(
        run="drawn-mpa",
        seed=0,
        supervision="weak",
        pooling="mpa",
        pooling_options={},
        resolution=96,
        flip_words="keep",
        image_encoder=EncoderProvenance(**ENCODER),
        trained_on=split(),
        pretrained_on=None,
        num_excluded=None,
    )
    built = build_model(settings, [phrase(np.random.default_rng(seed)) for seed in range(100)])
    save_model(root / "model.safetensors", built, settings.model_dump(), provenance)
    vit = build_vit(ENCODER["name"], ENCODER["options"], None, 0.0).vit
    save_file(vit.state_dict(), root / "vit.safetensors")
    return root / "vit.safetensors"


def commands(folder: Path, weights: Path, model: Path) -> dict[str, list[str]]:
    """The commands in order; each reads what an earlier one wrote."""
    records, found, masks = (str(folder / f"{name}.parquet") for name in ("val", "found", "masks"))
    pairs = {"format": "pairs", "annotations": str(folder / "pairs"), "images": [str(folder / "images")]}
    encoder = ENCODER | {"weights": str(weights), "drop_path": 0.0, "trainable": "heads", "mean": [0.5] * 3}
    encoding = {"kind": "patches", "records": records, "encoder": encoder | {"std": [0.5] * 3}, "views": VIEWS}
    predict = ["--model", str(model), "--records", records, "--resolution", "96", "--device", "cpu", "--output", found]
    refine = ["--predictions", found, "--records", records, "--threads", "2", "--output", masks]
    evaluate = ["--masks", masks, "--records", records, "--num-bootstrap", "100"]
    prepared = ["--settings", json.dumps(pairs | {"train": "val", "evaluation": "val"})]
    return {
        "prepare": ["drawn", "val", *prepared, "--output", str(folder / "prepared.parquet")],
        "encode": ["--settings", json.dumps(encoding), "--device", "cpu", "--output", str(folder / "tokens.parquet")],
        "predict": predict,
        "refine": refine,
        "evaluate": [*evaluate, "--output", str(folder / "s.parquet"), "--summary", str(folder / "s.json")],
    }


def peaks_of(commands: dict[str, list[str]]) -> dict[str, float]:
    """Run the commands; the peak memory of each in MB."""
    return {
        name: peak_of([str(Path(sys.executable).with_name("tseg")), name, *options])
        for name, options in commands.items()
    }


def peak_of(command: list[str]) -> float:
    """Peak resident size of a process in MB."""
    with tempfile.TemporaryFile() as log:
        process, peak = subprocess.Popen(command, stdout=log, stderr=log), 0.0
        while process.poll() is None:
            peak = max(peak, memory(process.pid, "VmHWM"))
            time.sleep(0.02)
        log.seek(0)
        assert process.returncode == 0, log.read().decode()
    return peak


if __name__ == "__main__":
    main()
