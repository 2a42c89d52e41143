"""The paper's tables from evaluation's summaries, with the published values below (sections 4.3 to 4.6)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tseg.files import require_file
from tseg.reporting.tables.formats import RowGroup, Sheet, html_page, latex, markdown, write_texts
from tseg.reporting.tables.notes import data_met, how_measured, provenance, remarks, words_asked

PAPER = "Strudel et al. 2022"
METRICS = [
    "mIoU",
    "mIoU_low",
    "mIoU_high",
    "overall_IoU",
    *(f"precision_0.{tenth}" for tenth in range(5, 10)),
    "empty",
    "pixel_accuracy",
]
FACTS = ["run", "supervision", "pooling", "scales", "flip", "crf", "num_records", "num_images"]
FACTS += ["num_excluded", "num_seen", "seen_excluded", "num_without_mask", "comparison", "resolution"]
NEEDED = ["seed", "run", "trained_on", "evaluated_on", "image_encoder", "comparison", "resolution"]


def write_table(layout: dict[str, Any], output: Path, *, published: Path) -> None:
    """Write a grid of metrics in percent: means over the seeds and, of several, ± their sample standard deviation.

    `layout` has number, title, corner, note, rows and columns (labels), best ("column", "row" or "table": the best of
    which is bold) and cells {row, column, metric, summaries}: the name of a metric ("mIoU", "subsets.c20") in the
    summaries that `tseg evaluate` wrote, one per seed. `output` is the CSV. Beside it go the same table as .md, .tex,
    .html and .json, and `<stem of output>_detail.csv` with every seed. `published` is a CSV of printed results: those
    of table `number` stand below ours, a block per source. A metric that no record has a part in is printed as "-".

    Raises ValueError when a cell has no place, or not one summary for each seed that another cell has.
    """
    _check_places(layout)
    summaries, detail = _collect(layout["cells"])
    means, deviations = _over_seeds(detail, layout)
    printed = _printed(published, layout["number"])
    of_paper = printed.loc[printed["source"] == PAPER, ["row", "column", "value"]]
    detail = detail.merge(of_paper.rename(columns={"value": "published"}), how="left", on=["row", "column"])
    detail_path = output.with_name(f"{output.stem}_detail.csv")
    place = f"{'Section' if '.' in layout['number'] else 'Table'} {layout['number']} of {PAPER}"
    sheet = Sheet(
        caption=f"{layout['title']}, in percent{f' ({place})' if PAPER in set(printed['source']) else ''}",
        data=provenance(summaries),
        notes=[
            *how_measured(summaries, layout["best"], num_missing=int(np.isnan(detail["value"].to_numpy()).sum())),
            *([layout["note"]] if layout["note"] else []),
            f"Every seed and the other metrics: {detail_path.name}.",
            *remarks(printed),
        ],
        corner=layout["corner"],
        best=layout["best"],
        blocks=[RowGroup("Reproduced", means, _texts(means, deviations)), *_published_blocks(printed, layout)],
    )
    several = len(set(detail["seed"])) > 1
    comment = f"# {' '.join(sheet.data)}\n"
    plain = means.join(deviations.add_suffix(" std")) if several else means
    write_texts(
        {
            output: comment + plain.to_csv(index_label=layout["corner"], float_format="%.2f"),
            detail_path: comment + detail.to_csv(index=False, float_format="%.6g"),
            output.with_suffix(".md"): markdown(sheet),
            output.with_suffix(".tex"): latex(sheet),
            output.with_suffix(".html"): html_page(sheet),
            output.with_suffix(".json"): _json(sheet.data, {"mean": means} | ({"std": deviations} if several else {})),
        }
    )


def _check_places(layout: dict[str, Any]) -> None:
    places = [(cell["row"], cell["column"]) for cell in layout["cells"]]
    for row, column in places:
        if row not in layout["rows"] or column not in layout["columns"] or places.count((row, column)) > 1:
            raise ValueError(f"the cell {row}, {column} needs one place among rows and columns; fix the layout")


def _collect(cells: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """The summaries, and of each a line with its cell, its seed and its metrics in percent."""
    found = [[_summary(Path(path)) for path in cell["summaries"]] for cell in cells]
    seeds = sorted({summary["seed"] for of_cell in found for summary in of_cell}) or [0]
    summaries, lines = [], []
    for cell, of_cell in zip(cells, found, strict=True):
        for seed in seeds:
            of_seed = [summary for summary in of_cell if summary["seed"] == seed]
            if len(of_seed) != 1:
                paths = "; ".join(summary["path"] for summary in of_seed) or "none"
                raise ValueError(
                    f"the cell {cell['row']}, {cell['column']} needs one summary of seed {seed} and has"
                    f" {len(of_seed)} ({paths}); evaluate that run, or leave out all but one"
                )
            summaries += of_seed
            lines.append(_line(cell, of_seed[0]))
    return summaries, pd.DataFrame(lines)


def _summary(path: Path) -> dict[str, Any]:
    summary = json.loads(require_file(path, "make it with `tseg evaluate`").read_text(encoding="utf-8"))
    missing = [key for key in NEEDED if key not in summary]
    if missing:
        raise ValueError(f"{path} lacks {missing[0]!r}; make it again with `tseg evaluate`")
    return summary | {"path": str(path)}


def _line(cell: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    return (
        {key: cell[key] for key in ("row", "column", "metric")}
        | {"seed": summary["seed"], "value": 100 * _value(summary, cell["metric"])}
        | {metric: 100 * summary[metric] for metric in METRICS if metric in summary}
        | {fact: summary[fact] for fact in FACTS if fact in summary}
        | {"labels": words_asked(summary.get("labels"))}
        | {step: data_met(summary[step]) for step in ("trained_on", "evaluated_on")}
    )


def _value(summary: dict[str, Any], metric: str) -> float:
    """The metric, in [0, 1]; NaN where no record has a part in it."""
    group, _, name = metric.partition(".")
    # A class is always there; a subset that no record is in is not.
    known = name in summary.get(group, {}) if group == "classes" else isinstance(summary.get(group), dict)
    if metric not in summary and not known:
        raise ValueError(f"{summary['path']} has no metric {metric}; name one that it has")
    found = summary[metric] if metric in summary else summary[group].get(name)
    found = found["mIoU"] if isinstance(found, dict) else found
    return float("nan") if found is None else float(found)


def _over_seeds(detail: pd.DataFrame, layout: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means and sample standard deviations, rows by columns, to the two decimals that are printed."""
    by_seed = detail.pivot(index=["row", "column"], columns="seed", values="value")
    means, deviations = (
        values.unstack("column").reindex(index=layout["rows"], columns=layout["columns"]).round(2)
        for values in (by_seed.mean(axis=1, skipna=False), by_seed.std(axis=1, ddof=1, skipna=False))
    )
    return means, deviations


def _texts(means: pd.DataFrame, deviations: pd.DataFrame) -> pd.DataFrame:
    """To two decimals; of one seed there is no deviation."""
    spread = deviations.map(" ± {:.2f}".format).mask(deviations.isna(), "")
    return (means.map("{:.2f}".format) + spread).mask(means.isna(), "-")


def _printed(path: Path, number: str) -> pd.DataFrame:
    """The printed results of one table, as text: source, row, column, value, note."""
    values = pd.read_csv(require_file(path, "restore it from the repository"), dtype=str, keep_default_na=False)
    return values.loc[values["table"] == number, ["source", "row", "column", "value", "note"]]


def _published_blocks(printed: pd.DataFrame, layout: dict[str, Any]) -> list[RowGroup]:
    """A block per source in the layout's order; rows and columns that we have not come last."""
    blocks = []
    for source, own in printed.groupby("source", sort=False):
        texts = own.pivot(index="row", columns="column", values="value")
        rows = [row for row in dict.fromkeys([*layout["rows"], *own["row"]]) if row in texts.index]
        texts = texts.reindex(index=rows, columns=list(dict.fromkeys([*layout["columns"], *own["column"]])))
        blocks.append(RowGroup(f"Published by {source}", texts.astype(float), texts.mask(texts.isna(), "-")))
    return blocks


def _json(data: list[str], tables: dict[str, pd.DataFrame]) -> str:
    """For `dvc metrics show`."""
    numbers = {
        name: {row: values.dropna().to_dict() for row, values in table.iterrows()} for name, table in tables.items()
    }
    return json.dumps({"data": " ".join(data), **numbers}, indent=2, ensure_ascii=False) + "\n"
