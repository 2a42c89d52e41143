"""The stages of the audit: which files of a plan each of them makes."""

from tseg.settings.plan import Plan

STAGES = ("data", "records", "pretraining", "training", "evaluation", "tables")
"""In the order of dvc.yaml."""
TRAINED = ("model.safetensors", "history.csv", "images.csv")
"""What a training leaves."""


def stage_files(plan: Plan, stage: str) -> list[str]:
    """The files that a stage makes; of `data` the manifests of the sources, each beside its folder, and given files."""
    results, tables = plan.settings.results_dir, list(plan.tables)
    if stage == "data":
        datasets = plan.trained | {evaluation.dataset for evaluation in plan.evaluations.values()}
        found = [path for dataset in sorted(datasets) for path in plan.raw_inputs(dataset)]
        found += [path for run in plan.runs for path in plan.encoder_weights(run)]
    elif stage == "records":
        records = {*plan.evaluation_records, *(run.records for run in plan.runs.values())}
        found = [path for each in sorted(records) for path in (each, f"{each.removesuffix('.parquet')}.skipped.csv")]
    elif stage in ("pretraining", "training"):
        starts = {run.pretraining for run in plan.runs.values()}
        runs = [name for name in plan.runs if (name in starts) == (stage == "pretraining")]
        folders = [plan.seed_dir(run, seed) for run in runs for seed in plan.settings.seeds]
        found = [
            f"{folder}/{name}" for folder in folders for name in ("model.safetensors", "history.csv", "images.csv")
        ]
    elif stage == "evaluation":
        summaries = sorted({path for table in tables for path in plan.summaries(table)})
        found = [path for each in summaries for path in (each, f"{each.removesuffix('.json')}.parquet")]
    else:
        formats = {
            "csv": [*tables, "datasets", "overlaps"],
            "md": [*tables, "datasets", "overlaps"],
            "html": [*tables, "datasets", "overlaps"],
            "tex": tables,
            "json": tables,
            "png": [*(f"figures/{name}" for name in plan.figures), *(f"curves/{name}" for name in tables), "datasets"],
        }
        found = [f"{results}/{name}.{suffix}" for suffix, names in formats.items() for name in names]
        found += [f"{results}/{name}_detail.csv" for name in tables]
    return list(dict.fromkeys(found))
