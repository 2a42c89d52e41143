"""Blocks of a table as Markdown, LaTeX and HTML."""

import html
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

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


class Block(NamedTuple):
    """A part of a table under its own `title`: numbers (NaN where there is none) and what is printed for them."""

    title: str
    values: pd.DataFrame
    texts: pd.DataFrame


class Sheet(NamedTuple):
    """All that a table prints.

    Sentences about its `data` come before the blocks, `notes` after. `corner` stands over the labels of the rows;
    `best` is column, row or table.
    """

    caption: str
    data: list[str]
    notes: list[str]
    corner: str
    best: str
    blocks: list[Block]


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


def _cells(block: Block, best: str, bold: str, escape: Callable[[str], str]) -> pd.DataFrame:
    """What is printed, through `escape`, the best in `bold`."""
    values = block.values.to_numpy(float)
    axis = {"column": 0, "row": 1, "table": None}[best]
    highest = np.max(values, axis=axis, keepdims=True, where=~np.isnan(values), initial=-np.inf)
    texts = block.texts.map(escape)
    return texts.mask(values == highest, texts.map(bold.format)).rename(index=escape, columns=escape)
