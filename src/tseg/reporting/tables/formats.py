"""Blocks of a table as Markdown, LaTeX and HTML, and on the terminal."""

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from tseg.files import atomic_write

LATEX = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$"}
    | {"λ": r"$\lambda$", "↓": r"$\downarrow$", "→": r"$\rightarrow$"}
)
PIPED_WIDTH = 1000  # characters
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
    """A part of a table under its own `title`: numbers (NaN where there is none) and what is printed for them."""

    title: str
    values: pd.DataFrame
    texts: pd.DataFrame


class Sheet(NamedTuple):
    """All that a table prints.

    Sentences about its `data` come before the blocks, `notes` after. `corner` stands over the labels of the rows;
    `best` is column, row, table or none.
    """

    caption: str
    data: list[str]
    notes: list[str]
    corner: str
    best: str
    blocks: list[RowGroup]


def markdown(sheet: Sheet) -> str:
    """The table as GitHub's Markdown."""
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
    """A table environment; the document needs the package booktabs."""

    def escape(text: str) -> str:
        return text.translate(LATEX)

    width = max(len(block.values.columns) for block in sheet.blocks)
    caption = escape(" ".join([f"{sheet.caption}.", *sheet.data, *sheet.notes]))
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{l{'r' * width}}}"]
    for block, rule in zip(sheet.blocks, [r"\toprule", *[r"\midrule"] * len(sheet.blocks)], strict=False):
        cells = _cells(block, sheet.best, r"\textbf{{{}}}", escape)
        heading = rf"\multicolumn{{{width + 1}}}{{l}}{{\emph{{{escape(block.title)}}}}}"
        rows = [[escape(sheet.corner), *cells.columns], *cells.reset_index().values]
        lines += [rule, rf"{heading} \\", *(rf"{' & '.join(row)} \\" for row in rows)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def html_page(sheet: Sheet) -> str:
    """The table as a page of its own."""
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
    """Raise ValueError where a split is named twice: a row or a column is known by its name."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is given {names.count(name)} times; give the records of each split once")


def write_texts(texts: dict[Path, str]) -> None:
    """Write each text to its file, whole or not at all."""
    for path, text in texts.items():
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")


def print_sheet(sheet: Sheet) -> None:
    """The table on stdout: within a terminal's width, and never wrapped where it goes into a file or a pipe."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(" ".join([f"{sheet.caption}.", *sheet.data]), soft_wrap=True)
    for block in sheet.blocks:
        table = Table(title=block.title, title_justify="left", box=SIMPLE_HEAD)
        table.add_column(sheet.corner)
        for name in block.texts.columns:
            table.add_column(name, justify="right")
        for row in block.texts.reset_index().to_numpy():
            table.add_row(*row)
        console.print(table)
    for note in sheet.notes:
        console.print(f"- {note}", soft_wrap=True)


def _cells(block: RowGroup, best: str, bold: str, escape: Callable[[str], str]) -> pd.DataFrame:
    """What is printed, through `escape`, the best in `bold`."""
    texts = block.texts.map(escape).rename(index=escape, columns=escape)
    if best == "none":
        return texts
    values = block.values.to_numpy(float)
    axis = {"column": 0, "row": 1, "table": None}[best]
    highest = np.max(values, axis=axis, keepdims=True, where=~np.isnan(values), initial=-np.inf)
    return texts.mask(values == highest, texts.map(bold.format))
