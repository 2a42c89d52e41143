"""The workflow on a few small images."""

import os
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
NUM_VAL = 4
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
METHODS = yaml.safe_load((ROOT / "config/experiments.yaml").read_text(encoding="utf-8"))["methods"]
del METHODS["GMP"]
ON_REFCOCO = {"RefCOCO+": {"dataset": "refcoco+"}}
NARROW = {"model.image_encoder": "wide_resnet38", "model.text_encoder": "classes"}
TABLES = {
    "table3": {"columns": ON_REFCOCO, "rows": {"{method}": {}, "TSEG (CRF)": {"method": "TSEG", "crf": True}}},
    "supervision": {
        "columns": ON_REFCOCO,
        "rows": {
            "Boxes first": {"method": "TSEG", "settings": {"training.weak.pretraining": "refcoco+"}},
            "Full supervision": {"supervision": "full"},
        },
    },
    "table1": {
        "columns": {"mIoU": {"dataset": "voc", "multiscale": True, "crf": True}},
        "rows": {"{method}, narrow": {"methods": ["GAP"], "settings": NARROW}},
    },
    "zero_shot": {
        "cells": {"dataset": "refcoco+", "evaluate": "voc", "method": "TSEG"},
        "columns": {"by name": {}, "better words": {"labels": "better_words"}},
        "rows": {"mIoU": {}, "{class}": {}},
    },
}
FIGURES = {
    "masks": {"kind": "masks", "cells": {"dataset": "refcoco+"}, "columns": {"{method}": {}}},
    "expressions": {"kind": "expressions", "columns": {"TSEG": {"dataset": "refcoco+", "method": "TSEG"}}},
    "classes": {"kind": "classes", "cells": TABLES["zero_shot"]["cells"], "columns": TABLES["zero_shot"]["columns"]},
    "assignment": {"kind": "assignment", "columns": {"TSEG": {"dataset": "refcoco+", "method": "TSEG"}}},
}
VARYING = ("logs/", "benchmarks/", "mlflow", "tracking.json", ".slurm_run", ".snakemake.lock")
"""Results that hold times, addresses or names of jobs; and the lock file of a driver killed after its last job."""


def small_settings(folder: Path) -> dict[str, Any]:
    """The default configuration, reduced to seconds, with absolute paths below `folder`."""
    experiments = {
        "methods": METHODS,
        "tables": {name: {"number": name, "title": name} | table for name, table in TABLES.items()},
        "figures": {name: {"title": name, "caption": "A caption."} | figure for name, figure in FIGURES.items()},
    }
    (folder / "experiments.yaml").write_text(yaml.safe_dump(experiments))
    text = (ROOT / "config/config.yaml").read_text().replace("data/raw", f"{folder}/data/raw")
    settings = yaml.safe_load(text)
    settings |= {
        "data_dir": f"{folder}/data",
        "results_dir": f"{folder}/results",
        "experiments": f"{folder}/experiments.yaml",
        "published": str(ROOT / "config/published.csv"),
        "label_sets": str(ROOT / "config/label_sets.yaml"),
        "sources": f"{folder}/sources.yaml",
        "tracking_uri": f"sqlite:///{folder}/results/mlflow.db",
        "num_bootstrap": 50,
    }
    write_small_catalogue(folder / "sources.yaml")
    for training in settings["training"].values():
        small = {
            "iterations": dict.fromkeys(settings["datasets"], 3),
            "batch_size": dict.fromkeys(settings["datasets"], 4),
        }
        training.update(small, resolution=48)
    settings["image_encoders"]["wide_resnet38"]["options"] = {"width": 2}
    return settings


def write_small_catalogue(path: Path) -> None:
    """The catalogue of the project with few images in its embedded data set."""
    catalogue = yaml.safe_load((ROOT / "config/sources.yaml").read_text())
    small = {"num_train": 12, "num_val": NUM_VAL}
    drawn = {name: source | small for name, source in catalogue.items() if source["kind"] == "shapes"}
    path.write_text(yaml.safe_dump(drawn))


def write_project(folder: Path, iterations: int) -> None:
    """A small Table 3, box pretraining and a student, with `iterations` of each training. All paths are relative."""
    settings = small_settings(folder)
    experiments = yaml.safe_load((folder / "experiments.yaml").read_text())
    del experiments["methods"]["SPA"]
    rows = experiments["tables"]["supervision"]["rows"] | {"Student": {"method": "TSEG", "supervision": "pseudo"}}
    experiments["tables"]["supervision"]["rows"] = {name: rows[name] for name in ("Boxes first", "Student")}
    for training in settings["training"].values():
        training["iterations"] = dict.fromkeys(settings["datasets"], iterations)
    for name, content in {"config": settings, "experiments": experiments | {"figures": {}}}.items():
        text = yaml.safe_dump(content, allow_unicode=True, width=10_000)
        (folder / f"{name}.yaml").write_text(text.replace(f"{folder}/", ""), encoding="utf-8")


def results_of(folder: Path) -> dict[str, bytes]:
    """Path to content, of all files of `data` and `results` whose bytes must not depend on a kill."""
    files = {str(path.relative_to(folder)): path for root in ("data", "results") for path in (folder / root).rglob("*")}
    return {
        name: path.read_bytes()
        for name, path in sorted(files.items())
        if path.is_file()
        and not name.removeprefix("results/").startswith(VARYING)
        and path.name != "mlflow_run.json"
        and path.parent.name != ".made"
    }
