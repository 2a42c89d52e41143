# Reads and checks the configuration, names runs; every helper function of the workflow is here.
import json
import re
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from tseg.config import Experiments, Settings, records_path, run_settings
from tseg.config import (
    parse as parse_settings,
)  # Snakemake has a `parse` of its own here


def checked(schema, values, origin):
    """The settings in `values`, or a WorkflowError in one sentence."""
    try:
        return parse_settings(schema, values, origin)
    except ValueError as error:
        raise WorkflowError(str(error)) from None


def experiments_of(settings):
    """The tables, checked against the data sets that the settings know."""
    path = Path(settings.experiments)
    if not path.exists():
        raise WorkflowError(
            f"{path} does not exist; set the key experiments to the file that lays out the tables"
        )
    experiments = checked(Experiments, yaml.safe_load(path.read_text()), str(path))
    for name, table in experiments.tables.items():
        for dataset in table.columns:
            if dataset not in settings.datasets:
                raise WorkflowError(
                    f"{path}: tables.{name}.columns: the configuration knows no data set {dataset}; "
                    f"it knows {', '.join(settings.datasets)}"
                )
    return experiments


SETTINGS = checked(
    Settings, config, " + ".join(map(str, workflow.configfiles)) or "--config"
)
EXPERIMENTS = experiments_of(SETTINGS)
DATA, RESULTS = SETTINGS.data_dir, SETTINGS.results_dir
RUNS = {
    run.run: run
    for table in EXPERIMENTS.tables.values()
    for dataset in table.columns
    for run in [run_settings(SETTINGS, dataset, row.pooling) for row in table.rows]
}
FIGURE_DATASETS = sorted(
    {dataset for table in EXPERIMENTS.tables.values() for dataset in table.columns}
)
SEED_DIR = f"{RESULTS}/runs/{{run}}/seed{{seed}}"


def one_of(names):
    """A wildcard constraint: exactly one of `names`."""
    return "|".join(map(re.escape, names))


wildcard_constraints:
    source=one_of(SETTINGS.sources) or "(?!)",
    dataset=one_of(SETTINGS.datasets),
    run=one_of(RUNS),
    table=one_of(EXPERIMENTS.tables),
    seed="[0-9]+",
    split="[^/]+",
    refinement="plain|crf",


def as_json(settings):
    """Settings as text for a command line; the order of the keys in the configuration does not show."""
    return json.dumps(settings.model_dump(mode="json"), sort_keys=True)


def device(rule):
    """On the GPU where a rule asks for one, else on the processor, even beside an idle GPU."""
    return "auto" if getattr(SETTINGS.resources, rule).gpu else "cpu"


def background(wildcards):
    """The option that GAP and GMP alone take."""
    weighted = RUNS[wildcards.run].pooling.weighting is not None
    return "" if weighted else f"--background {SETTINGS.inference.background}"


def annotation_files(dataset):
    """The files of a data set that is in place."""
    return [
        str(path)
        for path in sorted(Path(dataset.annotations).glob("*.*"))
        if path.is_file()
    ]


def raw_inputs(wildcards):
    """What a data set is made of: manifests of its sources, or the annotation files that are in place."""
    dataset = SETTINGS.datasets[wildcards.dataset]
    return [
        f"{DATA}/raw/{source}.json" for source in dataset.sources
    ] or annotation_files(dataset)


# Said here, since Snakemake swallows what an input function raises once there are outputs.
for name in FIGURE_DATASETS:
    if not SETTINGS.datasets[name].sources and not annotation_files(
        SETTINGS.datasets[name]
    ):
        raise WorkflowError(
            f"datasets.{name}.annotations: {SETTINGS.datasets[name].annotations} holds no file; put the annotations "
            "there, or name the sources that bring them"
        )


def training_records(wildcards):
    """Records that a run trains on."""
    return RUNS[wildcards.run].records


def evaluation_records(wildcards):
    """Records that a run is scored on: those of its own data set."""
    dataset = RUNS[wildcards.run].dataset
    return records_path(SETTINGS, dataset, SETTINGS.datasets[dataset].evaluation)


def summaries(wildcards):
    """Summaries of all cells of a table, for every seed."""
    table = EXPERIMENTS.tables[wildcards.table]
    return [
        f"{RESULTS}/scores/{dataset}-{row.pooling}/seed{seed}-{refinement(row)}.json"
        for dataset in table.columns
        for row in table.rows
        for seed in SETTINGS.seeds
    ]


def refinement(row):
    """What the masks of a table's row go through."""
    return "crf" if row.crf else "plain"


def methods(dataset):
    """Method to (run, refinement) over all tables that have `dataset` among their columns."""
    return {
        row.method: (f"{dataset}-{row.pooling}", refinement(row))
        for table in EXPERIMENTS.tables.values()
        if dataset in table.columns
        for row in table.rows
    }


def masks(wildcards):
    """Method to the mask file of the first seed."""
    return {
        method: f"{RESULTS}/masks/{run}/seed{SETTINGS.seeds[0]}-{refined}.parquet"
        for method, (run, refined) in methods(wildcards.dataset).items()
    }


def histories(wildcards):
    """Method to the history of the first seed; a method that only refines another's masks has none of its own."""
    return {
        method: f"{RESULTS}/runs/{run}/seed{SETTINGS.seeds[0]}/history.csv"
        for method, (run, refined) in methods(wildcards.dataset).items()
        if refined == "plain"
    }


def labelled(files):
    """A function of wildcards that writes the files of `files` as LABEL=FILE."""
    return lambda wildcards: [
        f"{label}={file}" for label, file in files(wildcards).items()
    ]
