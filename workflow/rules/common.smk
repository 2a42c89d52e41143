# Reads and checks the configuration, names runs; every helper function of the workflow is here.
import json
import re
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from tseg.settings.catalogue import Catalogue, check_sources
from tseg.settings.validation import (
    parse as parse_settings,
)  # Snakemake has a `parse` of its own here
from tseg.settings.schema import Settings, records_path
from tseg.settings.experiments import (
    Experiments,
    LabelSets,
    figure_cells,
    labels_of,
    runs_of,
    table_cells,
)
from tseg.model.pooling import POOLINGS


def checked(schema, values, origin):
    """The settings in `values`, or a WorkflowError in one sentence."""
    try:
        return parse_settings(schema, values, origin)
    except ValueError as error:
        raise WorkflowError(str(error)) from None


def read_settings(schema, key):
    """The file that the configuration names under `key`, checked."""
    path = Path(getattr(SETTINGS, key))
    if not path.exists():
        raise WorkflowError(
            f"{path} does not exist; set the key {key} to a file that does"
        )
    return checked(schema, yaml.safe_load(path.read_text(encoding="utf-8")), str(path))


def planned(plan, *arguments, origin=None):
    """What `plan` makes of the experiments, or of what `origin` says, or a WorkflowError in one sentence."""
    try:
        return plan(*arguments)
    except ValueError as error:
        raise WorkflowError(f"{origin or SETTINGS.experiments}: {error}") from None


CONFIGFILES = " + ".join(map(str, workflow.configfiles)) or "--config"
SETTINGS = checked(Settings, config, CONFIGFILES)
EXPERIMENTS = read_settings(Experiments, "experiments")
LABEL_SETS = read_settings(LabelSets, "label_sets")
CATALOGUE = read_settings(Catalogue, "sources")
planned(check_sources, SETTINGS, CATALOGUE, origin=CONFIGFILES)
TABLES = planned(table_cells, EXPERIMENTS, SETTINGS, LABEL_SETS)
FIGURES = planned(figure_cells, EXPERIMENTS, SETTINGS, LABEL_SETS)
CELLS = [cell for cells in (*TABLES.values(), *FIGURES.values()) for cell in cells]
RUNS = planned(runs_of, CELLS)
EVALUATIONS = {cell.evaluation.name: cell.evaluation for cell in CELLS}
DATA, RESULTS = SETTINGS.data_dir, SETTINGS.results_dir
SEED_DIR = f"{RESULTS}/runs/{{run}}/seed{{seed}}"
# What is made of one run, one seed and one evaluation.
CELL = "{run}/seed{seed}/{evaluation}"
USED = {cell.run.dataset for cell in CELLS} | {
    cell.evaluation.dataset for cell in CELLS
}
TRAINED = {run.dataset for run in RUNS.values()}


def one_of(names):
    """A wildcard constraint: exactly one of `names`."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    source=one_of(CATALOGUE),
    dataset=one_of(SETTINGS.datasets),
    run=one_of(RUNS),
    evaluation=one_of(EVALUATIONS),
    table=one_of(TABLES),
    figure=one_of(FIGURES),
    seed="[0-9]+",
    split="[^/]+",
    refinement="plain|crf",


def as_json(value):
    """Settings as text for a command line; the order of the keys in the configuration does not show."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def device(rule):
    """On the GPU where a rule asks for one, else on the processor, even beside an idle GPU."""
    return "auto" if getattr(SETTINGS.resources, rule).gpu else "cpu"


def annotation_files(dataset):
    """The files of a data set that is in place; beside pairs there may be images, of which they are none."""
    patterns = {
        "voc": ["ImageSets/Segmentation/*.txt"],
        "pairs": ["*.csv", "*.parquet", "*.json"],
    }.get(dataset.format, ["*.*"])
    folder = Path(dataset.annotations)
    found = [path for pattern in patterns for path in folder.glob(pattern)]
    return [str(path) for path in sorted(found) if path.is_file()]


def raw_inputs(wildcards):
    """What a data set is made of: manifests of its sources, or the annotation files that are in place."""
    dataset = SETTINGS.datasets[wildcards.dataset]
    return [
        f"{DATA}/raw/{source}.json" for source in dataset.sources
    ] or annotation_files(dataset)


# Said here, since Snakemake swallows what an input function raises once there are outputs.
for name in SETTINGS.datasets:
    if (
        name in USED
        and not SETTINGS.datasets[name].sources
        and not annotation_files(SETTINGS.datasets[name])
    ):
        raise WorkflowError(
            f"datasets.{name}.annotations: {SETTINGS.datasets[name].annotations} holds no file; put the annotations "
            "there, or name the sources that bring them"
        )


# Of every data set in use: records that a run learns from, and records that one is scored on or drawn with.
TRAINING_RECORDS = [
    records_path(SETTINGS, name, dataset.train)
    for name, dataset in SETTINGS.datasets.items()
    if name in TRAINED
]
EVALUATION_RECORDS = list(
    dict.fromkeys(
        records_path(SETTINGS, cell.evaluation.dataset, cell.evaluation.split)
        for cell in CELLS
    )
)


def evaluation_records(wildcards):
    """Records that masks are made for and scored on."""
    evaluation = EVALUATIONS[wildcards.evaluation]
    return records_path(SETTINGS, evaluation.dataset, evaluation.split)


def pretraining(wildcards):
    """The model that a run starts from, where it does."""
    start = RUNS[wildcards.run].pretraining
    return (
        [f"{RESULTS}/runs/{start}/seed{wildcards.seed}/model.safetensors"]
        if start
        else []
    )


def encoder_weights(wildcards):
    """The manifests of the sources that bring a run's encoder weights: those in whose folders the files lie."""
    model = RUNS[wildcards.run].model
    files = [model.image_encoder.weights, getattr(model.text_encoder, "weights", None)]
    return [
        f"{DATA}/raw/{source}.json"
        for source in CATALOGUE
        if any(f"{file}/".startswith(f"{DATA}/raw/{source}/") for file in files)
    ]


def resolution(wildcards):
    """At which the encoder of a run sees images."""
    return getattr(SETTINGS.inference.resolution, RUNS[wildcards.run].supervision)


def views(wildcards):
    """Scales and flip, where they are not one and none."""
    if not EVALUATIONS[wildcards.evaluation].multiscale:
        return []
    return [f"--scales={scale}" for scale in SETTINGS.inference.multiscale] + ["--flip"]


def asked_labels(wildcards):
    """The words that a data set with classes has a model asked for."""
    labels = labels_of(SETTINGS, LABEL_SETS, EVALUATIONS[wildcards.evaluation])
    return [f"--labels={as_json(labels)}"] if labels else []


def thresholds(wildcards):
    """The options that GAP and GMP alone take, and data sets with classes."""
    pooling = RUNS[wildcards.run].pooling
    normalised = pooling and POOLINGS[pooling.name].masks is None
    classes = SETTINGS.datasets[EVALUATIONS[wildcards.evaluation].dataset].classes
    return ([f"--background={SETTINGS.inference.background}"] if normalised else []) + (
        [f"--confidence={SETTINGS.inference.confidence}"] if classes else []
    )


def cell_file(cell, kind, seed):
    """Where the masks or the scores of a cell lie, without the ending."""
    refined = "crf" if cell.crf else "plain"
    return (
        f"{RESULTS}/{kind}/{cell.run.run}/seed{seed}/{cell.evaluation.name}-{refined}"
    )


def summaries(wildcards):
    """Summaries of all cells of a table, for every seed, each once."""
    files = [
        cell_file(cell, "scores", seed) + ".json"
        for cell in TABLES[wildcards.table]
        for seed in SETTINGS.seeds
    ]
    return list(dict.fromkeys(files))


def layout(wildcards):
    """A table as `tseg tabulate` takes it."""
    table, cells = EXPERIMENTS.tables[wildcards.table], TABLES[wildcards.table]
    described = table.model_dump(include={"number", "title", "corner", "best", "note"})
    return as_json(
        described
        | {
            "table": wildcards.table,
            "rows": list(dict.fromkeys(cell.row for cell in cells)),
            "columns": list(dict.fromkeys(cell.column for cell in cells)),
            "cells": [
                {
                    "row": cell.row,
                    "column": cell.column,
                    "metric": cell.metric,
                    "summaries": [
                        cell_file(cell, "scores", seed) + ".json"
                        for seed in SETTINGS.seeds
                    ],
                }
                for cell in cells
            ],
        }
    )


def drawn_files(wildcards):
    """What a figure draws, of the first seed: masks, or for the assignment of patches similarities."""
    seed, cells = SETTINGS.seeds[0], FIGURES[wildcards.figure]
    if EXPERIMENTS.figures[wildcards.figure].kind == "assignment":
        return [
            f"{RESULTS}/predictions/{cell.run.run}/seed{seed}/{cell.evaluation.name}.parquet"
            for cell in cells
        ]
    return [cell_file(cell, "masks", seed) + ".parquet" for cell in cells]


def drawn_records(wildcards):
    """Records of the data set that a figure shows."""
    evaluation = FIGURES[wildcards.figure][0].evaluation
    return records_path(SETTINGS, evaluation.dataset, evaluation.split)


def drawn_choice(wildcards):
    """How a figure calls its columns and which images it shows: its seed, the classes that its label set is about."""
    figure, cells = EXPERIMENTS.figures[wildcards.figure], FIGURES[wildcards.figure]
    if figure.kind == "assignment":
        return []
    labels = (
        [f"--label={cell.column}" for cell in cells]
        if figure.kind in ("masks", "classes")
        else []
    )
    classes = SETTINGS.datasets[cells[0].evaluation.dataset].classes or []
    only = [
        f"--only={name}"
        for name in classes
        if any(
            name in LABEL_SETS[cell.evaluation.labels]
            for cell in cells
            if cell.evaluation.labels
        )
    ]
    return [*labels, *only, f"--seed={figure.seed}", f"--num-panels={figure.num_panels}"]


def histories(wildcards):
    """Of the first seed, of all runs behind a table."""
    return [
        f"{RESULTS}/runs/{run}/seed{SETTINGS.seeds[0]}/history.csv"
        for run in runs_of(TABLES[wildcards.table])
    ]


def panels(wildcards):
    """Run to what its loss is: runs of different supervision minimise different losses."""
    losses = {
        "weak": "weak supervision",
        "full": "full supervision",
        "boxes": "box pretraining",
    }
    return as_json(
        {
            run: losses[settings.supervision]
            for run, settings in runs_of(TABLES[wildcards.table]).items()
        }
    )
