"""The stages of the audit: which files of a plan each of them makes."""

from tseg.settings.plan import Plan

STAGES = ("data", "records", "pretraining", "training", "evaluation", "tables")
"""In the order of dvc.yaml."""


def stage_files(plan: Plan, stage: str) -> list[str]:
    """The files that a stage makes; of `data` the manifests of the sources, each beside its folder, and given files."""
    results, tables, seeds = plan.settings.results_dir, list(plan.tables), plan.settings.seeds
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
        trained = ("model.safetensors", "history.csv", "images.csv")
        found = [f"{results}/runs/{run}/config.yaml" for run in runs]
        found += [f"{plan.seed_dir(run, seed)}/{name}" for run in runs for seed in seeds for name in trained]
        students = [(run, seed) for run in runs for seed in seeds if plan.runs[run].teacher]
        found += [path for each in students for path in (plan.taught_predictions(*each), *plan.pseudo_labels(*each))]
    elif stage == "evaluation":
        cells = [(cell, seed) for table in tables for cell in plan.tables[table] for seed in seeds]
        found = [plan.cell_file(cell, kind, seed) for kind in ("predictions", "masks") for cell, seed in cells]
        found += [path for figure in plan.figures for path in plan.drawn_files(figure)]
        summaries = [path for table in tables for path in plan.summaries(table)]
        found += [path for each in summaries for path in (each, f"{each.removesuffix('.json')}.parquet")]
    else:
        sheets = [*tables, "datasets", "overlaps"]
        images = [*(f"figures/{name}" for name in plan.figures), *(f"curves/{name}" for name in tables), "datasets"]
        formats = {"csv": sheets, "md": sheets, "html": sheets, "tex": tables, "json": tables, "png": images}
        found = [f"{results}/{name}.{suffix}" for suffix, names in formats.items() for name in names]
        found += [f"{results}/{name}_detail.csv" for name in tables]
    return list(dict.fromkeys(found))
