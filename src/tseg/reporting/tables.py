"""The paper's tables from evaluation's summaries, with the published values beside (section 4.5, Table 3)."""

import html
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from tseg.files import existing, whole_file

PAPER = "Strudel et al. 2022"
EMBEDDED = "shapes"
METRICS = [
    "mIoU",
    "mIoU_low",
    "mIoU_high",
    "overall_IoU",
    *(f"precision_0.{tenth}" for tenth in range(5, 10)),
]
FACTS = ["num_records", "num_pictures", "split", "comparison", "resolution", "crf", "run", "pooling"]
LATEX = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}"}
)
PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 sans-serif; color: #222; max-width: 46rem; margin: auto; padding: 1rem }}
h1 {{ font-size: 1.2rem }}
h2 {{ font-size: 1rem; font-weight: normal; font-style: italic; margin: 1.5rem 0 .25rem }}
table {{ border-collapse: collapse; width: 100%; border: solid; border-width: 2px 0 }}
th, td {{ padding: .2rem .6rem; text-align: right; width: 20%; font-variant-numeric: tabular-nums }}
th:first-child {{ text-align: left; font-weight: normal }}
thead th {{ border-bottom: 1px solid }}
</style>"""


def write_table(
    summaries: list[Path],
    output: Path,
    *,
    datasets: dict[str, str],
    rows: list[dict[str, Any]],
    table: str,
    published: Path,
) -> None:
    """Write a table of mIoU in percent, means over the seeds, once every cell has its summary.

    `output` is the CSV. Beside it go the same table as .md, .tex, .html and .json, and `<stem of output>_detail.csv`
    with every metric of every seed in percent. `datasets` gives the columns, name to title; a row is
    {method, pooling, crf}, crf being true where the masks were refined. `published` is a CSV of printed
    results: those of the paper's table number `table` stand beside ours.

    Raises ValueError when a cell has no summary, or more than one, for a seed that another cell has.
    """
    detail, provenance = _collect(summaries, datasets, rows)
    detail = detail.merge(
        _published(published, table), how="left", on=["method", "dataset", "split"], validate="many_to_one"
    )
    methods = [row["method"] for row in rows]
    blocks = {
        "Reproduced": _pivot(detail, "mIoU", methods, datasets),
        f"Published by {PAPER}": _pivot(detail, "published", methods, datasets),
    }
    caption = f"mIoU in percent, as in Table {table} of {PAPER}"
    detail_path = output.with_name(f"{output.stem}_detail.csv")
    notes = [
        *provenance,
        f"IoU averaged over records. Seeds averaged: {_listed(detail['seed'])}. Best of each column in bold.",
        f"Masks: {_listed(detail['comparison'])}. Resolution: {_listed(detail['resolution'])}.",
        f"Every seed, its 95% interval and the other metrics: {detail_path.name}.",
    ]
    comment = f"# {' '.join(provenance)}\n"
    texts = {
        output: comment + blocks["Reproduced"].to_csv(index_label="Method", float_format="%.2f"),
        detail_path: comment + detail.to_csv(index=False, float_format="%.6g"),
        output.with_suffix(".md"): _markdown(blocks, caption, notes),
        output.with_suffix(".tex"): _latex(blocks, caption, notes),
        output.with_suffix(".html"): _html(blocks, caption, notes),
        output.with_suffix(".json"): _json(blocks["Reproduced"], provenance),
    }
    for path, text in texts.items():
        with whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8")


def _collect(
    summaries: list[Path], datasets: dict[str, str], rows: list[dict[str, Any]]
) -> tuple[pd.DataFrame, list[str]]:
    """One line per cell and seed, and the sentences that say which data made the numbers."""
    found = defaultdict(list)
    for path in summaries:
        summary = json.loads(existing(path, "make it with `tseg evaluate`").read_text(encoding="utf-8")) | {
            "path": path
        }
        found[summary["pooling"], bool(summary["crf"]), summary["dataset"], summary["seed"]].append(summary)
    seeds = sorted({seed for *_, seed in found}) or [0]
    used, lines = [], []
    for row, dataset, seed in product(rows, datasets, seeds):
        cell = found[row["pooling"], row["crf"], dataset, seed]
        if len(cell) != 1:
            paths = _listed(each["path"] for each in cell) or "none"
            raise ValueError(
                f"the cell {row['method']}, {datasets[dataset]} needs one summary of seed {seed} and has"
                f" {len(cell)} ({paths}); evaluate that run, or leave out all but one"
            )
        used += cell
        lines.append(
            {"method": row["method"], "dataset": dataset, "seed": seed}
            | {metric: 100 * cell[0][metric] for metric in METRICS}
            | {fact: cell[0][fact] for fact in FACTS}
            | {key: _data(cell[0][key], datasets) for key in ("trained_on", "evaluated_on")}
        )
    return pd.DataFrame(lines), _provenance(used, datasets)


def _data(data: dict[str, Any], titles: dict[str, str]) -> str:
    sources = " and ".join(data["sources"]) or "files in place"
    return f"{titles.get(data['dataset'], data['dataset'])} {data['split']} ({sources})"


def _provenance(summaries: list[dict[str, Any]], titles: dict[str, str]) -> list[str]:
    """Which data the models met, in sentences without commas or quotes: they head a CSV."""
    steps = ("trained", "evaluated")
    embedded = [step for step in steps if any(EMBEDDED in each[f"{step}_on"]["sources"] for each in summaries)]
    warning = (
        f"The models were {' and '.join(embedded)} on the embedded data set {EMBEDDED}:"
        " these numbers are not those of the paper."
    )
    data = [
        f"{step.capitalize()} on {_listed(_data(each[f'{step}_on'], titles) for each in summaries)}." for step in steps
    ]
    return [warning, *data] if embedded else data


def _published(path: Path, table: str) -> pd.DataFrame:
    """The mIoU that the paper's own table prints, by method, dataset and split."""
    values = pd.read_csv(existing(path, "restore it from the repository"), dtype={"table": str})
    own = (values["source"] == PAPER) & (values["table"] == table) & (values["metric"] == "mIoU")
    return values.loc[own, ["method", "dataset", "split"]].assign(published=values["value"])


def _listed(items: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(map(str, items)))


def _pivot(detail: pd.DataFrame, column: str, methods: list[str], datasets: dict[str, str]) -> pd.DataFrame:
    """Methods by data sets, means over the seeds, to the two decimals that are printed."""
    means = detail.pivot_table(index="method", columns="dataset", values=column, aggfunc="mean")
    return means.reindex(index=methods, columns=list(datasets)).rename(columns=datasets).round(2)


def _cells(table: pd.DataFrame, bold: str, escape: Callable[[str], str]) -> pd.DataFrame:
    """The numbers as text, the best of each column in `bold`, the names through `escape`."""
    text = table.map("{:.2f}".format).mask(table.isna(), "-")
    return text.mask(table == table.max(), text.map(bold.format)).rename(index=escape, columns=escape)


def _markdown(blocks: dict[str, pd.DataFrame], caption: str, notes: list[str]) -> str:
    lines = [f"**{caption}.** {' '.join(notes)}", ""]
    for title, table in blocks.items():
        cells = _cells(table, "**{}**", lambda name: name.replace("|", r"\|"))
        grid = [
            ["Method", *cells.columns],
            ["---", *["---:"] * len(cells.columns)],
            *cells.reset_index().values,
        ]
        lines += [f"*{title}*", "", *(f"| {' | '.join(row)} |" for row in grid), ""]
    return "\n".join(lines)


def _latex(blocks: dict[str, pd.DataFrame], caption: str, notes: list[str]) -> str:
    """A table environment; the document needs the package booktabs."""
    caption = " ".join([f"{caption}.", *notes]).translate(LATEX)
    columns = next(iter(blocks.values())).columns
    head = " & ".join(["Method", *(name.translate(LATEX) for name in columns)])
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(columns)}}}", r"\toprule", rf"{head} \\"]
    for title, table in blocks.items():
        cells = _cells(table, r"\textbf{{{}}}", lambda name: name.translate(LATEX)).reset_index()
        heading = rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\emph{{{title.translate(LATEX)}}}}} \\"
        lines += [r"\midrule", heading, *(rf"{' & '.join(row)} \\" for row in cells.values)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _json(table: pd.DataFrame, provenance: list[str]) -> str:
    """For `dvc metrics show`."""
    return json.dumps({"data": " ".join(provenance), "mIoU": table.to_dict("index")}, indent=2) + "\n"


def _html(blocks: dict[str, pd.DataFrame], caption: str, notes: list[str]) -> str:
    title, text = html.escape(caption), html.escape(" ".join(notes))
    parts = [PAGE.format(title=title), f"<h1>{title}</h1>", f"<p>{text}</p>"]
    for heading, table in blocks.items():
        cells = _cells(table, "<b>{}</b>", html.escape).rename_axis(index=None, columns="Method")
        parts += [f"<h2>{html.escape(heading)}</h2>", cells.to_html(escape=False, border=0)]
    return "\n".join([*parts, "</html>", ""])
