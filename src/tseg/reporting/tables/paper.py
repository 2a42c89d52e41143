"""The paper's tables from evaluation's summaries, with the published values below (sections 4.3 to 4.6)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tseg.evaluation.score import Summary, read_summary
from tseg.reporting.tables.formats import RowGroup, Sheet, csv_text, latex, sheet_texts, write_texts
from tseg.reporting.tables.notes import (
    RESOLUTION,
    category_ranks,
    describe_data,
    engineered_labels,
    how_measured,
    name_with_sources,
    remarks,
)
from tseg.settings.layout import TableLayout
from tseg.settings.published import PublishedResult, read_published
from tseg.settings.validation import prefix_errors

PAPER = "Strudel et al. 2022"


def write_table(layout: TableLayout, output: Path, *, published: Path) -> None:
    """Write a grid of metrics in percent: means over the seeds and, if there are several, ± sample standard deviations.

    `output` is the CSV. Beside it go the same table as .md, .tex, .html and .json, and `<stem of output>_detail.csv`
    with every seed. `published` is a CSV of published results: those of the same table appear below ours, a group of
    rows per source. A metric without any record is printed as "-".

    Raises ValueError if a cell occurs twice or lies outside the table, if it does not have exactly one summary for each
    seed of the table, or if `read_published` refuses a published result.
    """
    _check_cells(layout)
    summaries, detail = _collect(layout)
    means, deviations = _over_seeds(detail, layout)
    published_results = _read_published(published, layout)
    from_paper = published_results.loc[published_results["source"] == PAPER, ["row", "column", "value"]]
    detail = detail.merge(from_paper.rename(columns={"value": "published"}), how="left", on=["row", "column"])
    detail_path = output.with_name(f"{output.stem}_detail.csv")
    reference = f"{'Section' if '.' in layout.number else 'Table'} {layout.number} of {PAPER}"
    sheet = Sheet(
        caption=f"{layout.title}, in percent{f' ({reference})' if PAPER in set(published_results['source']) else ''}",
        data=describe_data(summaries),
        notes=[
            *how_measured(summaries, layout.best, num_missing=int(np.isnan(detail["value"].to_numpy()).sum())),
            *([layout.note] if layout.note else []),
            *(category_ranks(summaries) if any(cell.metric.startswith("subsets.c") for cell in layout.cells) else []),
            f"Every seed and the other metrics: {detail_path.name}.",
            *remarks(published_results),
        ],
        corner=layout.corner,
        best=layout.best,
        blocks=[RowGroup("Reproduced", means, _texts(means, deviations)), *_published_rows(published_results, layout)],
    )
    several = len(set(detail["seed"])) > 1
    plain = means.join(deviations.add_suffix(" std")) if several else means
    write_texts(
        {
            **sheet_texts(sheet, output, plain.to_csv(index_label=layout.corner, float_format="%.2f")),
            detail_path: csv_text(sheet, detail.to_csv(index=False, float_format="%.6g")),
            output.with_suffix(".tex"): latex(sheet),
            output.with_suffix(".json"): _json(sheet.data, {"mean": means} | ({"std": deviations} if several else {})),
        }
    )


def _check_cells(layout: TableLayout) -> None:
    labels = [(cell.row, cell.column) for cell in layout.cells]
    for row, column in labels:
        if row not in layout.rows or column not in layout.columns or labels.count((row, column)) > 1:
            raise ValueError(
                f"the cell {row}, {column} must occur once, in one of the layout's rows and columns; fix the layout"
            )


def _collect(layout: TableLayout) -> tuple[list[Summary], pd.DataFrame]:
    """The summaries, and for each a line with its cell, its seed and its metrics in percent."""
    paths = {path: read_summary(Path(path)) for cell in layout.cells for path in cell.summaries}
    seeds = sorted({summary.model.seed for summary in paths.values()}) or [0]
    summaries: list[Summary] = []
    lines: list[dict[str, Any]] = []
    for cell in layout.cells:
        for seed in seeds:
            of_seed = [path for path in cell.summaries if paths[path].model.seed == seed]
            if len(of_seed) != 1:
                raise ValueError(
                    f"the cell {cell.row}, {cell.column} needs one summary of seed {seed} and has {len(of_seed)} "
                    f"({'; '.join(of_seed) or 'none'}); evaluate that run, or leave out all but one"
                )
            summary = paths[of_seed[0]]
            summaries.append(summary)
            with prefix_errors(of_seed[0]):
                value = summary.metric(cell.metric)
            lines.append(
                {"row": cell.row, "column": cell.column, "metric": cell.metric, "seed": seed}
                | {"value": np.nan if value is None else 100 * value}
                | _details(summary)
            )
    return summaries, pd.DataFrame(lines)


def _details(summary: Summary) -> dict[str, Any]:
    """All metrics of a summary in percent, and the facts behind them; counts of records only if records were scored."""
    model, predictions, of_records = summary.model, summary.predictions, summary.classes is None
    return {
        **{name: 100 * value for name, value in summary.metrics.items()},
        "run": model.run,
        "supervision": model.supervision,
        "pooling": model.pooling,
        "scales": predictions.scales,
        "flip": predictions.flip,
        "window": predictions.window,
        "threshold": summary.masks.threshold,
        "crf": summary.masks.crf,
        **({"num_records": summary.num_records} if of_records else {}),
        "num_images": summary.num_images,
        "num_excluded": model.num_excluded,
        "num_seen": summary.num_seen,
        "seen_excluded": summary.seen_excluded,
        **({"num_without_mask": summary.num_without_mask} if of_records else {}),
        "comparison": summary.masks.comparison,
        "resolution": RESOLUTION,
        "labels": engineered_labels(predictions.labels),
        "trained_on": name_with_sources(model.trained_on),
        "evaluated_on": name_with_sources(predictions.evaluated_on),
    }


def _over_seeds(detail: pd.DataFrame, layout: TableLayout) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means and sample standard deviations, rows by columns, rounded to the two decimals that are printed."""
    by_seed = detail.pivot(index=["row", "column"], columns="seed", values="value")
    means, deviations = (
        values.unstack("column").reindex(index=layout.rows, columns=layout.columns).round(2)
        for values in (by_seed.mean(axis=1, skipna=False), by_seed.std(axis=1, ddof=1, skipna=False))
    )
    return means, deviations


def _texts(means: pd.DataFrame, deviations: pd.DataFrame) -> pd.DataFrame:
    """Format means ± deviations with two decimals; a single seed has no deviation."""
    spread = deviations.map(" ± {:.2f}".format).mask(deviations.isna(), "")
    return (means.map("{:.2f}".format) + spread).mask(means.isna(), "-")


def _read_published(path: Path, layout: TableLayout) -> pd.DataFrame:
    """Read the published results of a table, as text, with the fields of `PublishedResult`. Raises ValueError."""
    results = [result for result in read_published(path, [layout]) if result.table == layout.number]
    return pd.DataFrame(results, columns=list(PublishedResult._fields), dtype=str)


def _published_rows(published: pd.DataFrame, layout: TableLayout) -> list[RowGroup]:
    """A group of rows per source in the layout's order; rows and columns that only the source has come last."""
    groups: list[RowGroup] = []
    for source, of_source in published.groupby("source", sort=False):
        texts = of_source.pivot(index="row", columns="column", values="value")
        rows = [row for row in dict.fromkeys([*layout.rows, *of_source["row"]]) if row in texts.index]
        texts = texts.reindex(index=rows, columns=list(dict.fromkeys([*layout.columns, *of_source["column"]])))
        groups.append(RowGroup(f"Published by {source}", texts.astype(float), texts.mask(texts.isna(), "-")))
    return groups


def _json(data: list[str], tables: dict[str, pd.DataFrame]) -> str:
    """The table for `dvc metrics show`."""
    numbers = {
        name: {row: values.dropna().to_dict() for row, values in table.iterrows()} for name, table in tables.items()
    }
    return json.dumps({"data": " ".join(data), **numbers}, indent=2, ensure_ascii=False) + "\n"
