"""Write tables as Markdown, LaTeX and HTML, and print them."""

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from tseg.files import atomic_write

LATEX = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$"}
    | {"λ": r"$\lambda$", "↓": r"$\downarrow$", "→": r"$\rightarrow$"}
)
PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 sans-serif; color: #222; max-width: 60rem; margin: auto; padding: 1rem }}
h1 {{ font-size: 1.2rem }}
h2 {{ font-size: 1rem; font-weight: normal; font-style: italic; margin: 1.5rem 0 .25rem }}
ul {{ font-size: .9rem; padding-left: 1.2rem }}
table {{ border-collapse: collapse; border: solid; border-width: 2px 0 }}
.wide {{ overflow-x: auto }}
th, td {{ padding: .2rem .8rem; text-align: right; font-variant-numeric: tabular-nums }}
th:first-child {{ text-align: left; font-weight: normal }}
thead th {{ border-bottom: 1px solid }}
</style>"""


class RowGroup(NamedTuple):
    """Rows of a table under their own `title`: `values` (NaN if missing) and their printed `texts`, of equal shape."""

    title: str
    values: pd.DataFrame
    texts: pd.DataFrame


class Sheet(NamedTuple):
    """The contents of a printed table.

    Sentences about its `data` precede the blocks, `notes` follow them. `corner` heads the column of row labels.
    `best` selects the bold cells: the largest of each column or row, of the whole table (per block), or none.
    """

    caption: str
    data: list[str]
    notes: list[str]
    corner: str
    best: Literal["column", "row", "table", "none"]
    blocks: list[RowGroup]


def markdown(sheet: Sheet) -> str:
    """Format the table as GitHub-flavoured Markdown."""
    lines = [f"**{sheet.caption}.** {' '.join(sheet.data)}", ""]
    for block in sheet.blocks:
        cells = _cells(block, sheet.best, "**{}**", lambda name: name.replace("|", r"\|"))
        grid = [
            [sheet.corner, *cells.columns],
            ["---", *["---:"] * len(cells.columns)],
            *cells.reset_index().values,
        ]
        lines += [f"*{block.title}*", "", *(f"| {' | '.join(row)} |" for row in grid), ""]
    return "\n".join([*lines, *(f"- {note}" for note in sheet.notes), ""])


def latex(sheet: Sheet) -> str:
    """Format the table as a LaTeX `table` environment, which needs the package booktabs."""

    def escape(text: str) -> str:
        return text.translate(LATEX)

    width = max(len(block.values.columns) for block in sheet.blocks)
    caption = escape(" ".join([f"{sheet.caption}.", *sheet.data, *sheet.notes]))
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{l{'r' * width}}}"]
    for number, block in enumerate(sheet.blocks):
        cells = _cells(block, sheet.best, r"\textbf{{{}}}", escape)
        heading = rf"\multicolumn{{{width + 1}}}{{l}}{{\emph{{{escape(block.title)}}}}}"
        rows = [[escape(sheet.corner), *cells.columns], *cells.reset_index().values]
        lines += [r"\midrule" if number else r"\toprule", rf"{heading} \\", *(rf"{' & '.join(row)} \\" for row in rows)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def html_page(sheet: Sheet) -> str:
    """Format the table as a complete HTML page."""
    title = html.escape(sheet.caption)
    parts = [PAGE.format(title=title), f"<h1>{title}</h1>", f"<p>{html.escape(' '.join(sheet.data))}</p>"]
    for block in sheet.blocks:
        cells = _cells(block, sheet.best, "<b>{}</b>", html.escape)
        cells = cells.rename_axis(index=None, columns=html.escape(sheet.corner))
        parts += [
            f"<h2>{html.escape(block.title)}</h2>",
            f'<div class="wide">{cells.to_html(escape=False, border=0)}</div>',
        ]
    notes = [f"<li>{html.escape(note)}</li>" for note in sheet.notes]
    return "\n".join([*parts, "<ul>", *notes, "</ul>", "</html>", ""])


def check_distinct(names: Sequence[str]) -> None:
    """Raise ValueError if a split occurs twice: rows and columns are identified by their names."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is given {names.count(name)} times; give the records of each split once")


def csv_text(sheet: Sheet, csv: str) -> str:
    """The CSV below a comment that names the data of the table."""
    return f"# {' '.join(sheet.data)}\n{csv}"


def sheet_texts(sheet: Sheet, output: Path, csv: str) -> dict[Path, str]:
    """File to text: the CSV as `output`, and the printed table beside it as .md and .html."""
    return {
        output: csv_text(sheet, csv),
        output.with_suffix(".md"): markdown(sheet),
        output.with_suffix(".html"): html_page(sheet),
    }


def write_texts(texts: dict[Path, str]) -> None:
    """Write each text to its file atomically."""
    for path, text in texts.items():
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")


def print_sheet(sheet: Sheet) -> None:
    """Print the table: rendered to the width of a terminal, or as Markdown if stdout is a file or a pipe."""
    from rich.console import Console
    from rich.markdown import Markdown

    console, text = Console(), markdown(sheet)
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        print(text, end="")


def _cells(block: RowGroup, best: str, bold: str, escape: Callable[[str], str]) -> pd.DataFrame:
    """Return the texts and labels of `block`, passed through `escape`, with the best cells in `bold`."""
    texts = block.texts.map(escape).rename(index=escape, columns=escape)
    if best == "none":
        return texts
    values, axis = block.values.to_numpy(float), {"column": 0, "row": 1, "table": None}[best]
    # fmax ignores NaN. Where all are NaN the maximum is NaN, which equals nothing.
    return texts.mask(values == np.fmax.reduce(values, axis=axis, keepdims=True), texts.map(bold.format))
