"""The ancestry of a result: the files, runs, seeds, MLflow runs and data behind it, and how to make it again."""

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from tseg.evaluation.score import read_summary
from tseg.files import hash_file, require_file
from tseg.lineage import Note, read_note
from tseg.settings.layout import TableLayout
from tseg.settings.validation import parse
from tseg.tracking import RUN_FILE

HASH_LENGTH = 12
"""Characters of a hash that are shown."""
LINE_LENGTH = 500
"""Of output that is no terminal's."""


def explain_file(path: Path, row: str | None = None, column: str | None = None) -> None:
    """Print what made `path`, and the ancestry of each of its inputs; of a table, cell by cell.

    `row` and `column` choose cells of a table by a part of their label. Raises ValueError if the file has no note, or
    the table has no such cell.
    """
    note = read_note(require_file(path, "name a file that the workflow made"))
    if note is None:
        raise ValueError(f"{path} has no note of what made it; make it again with this version of tseg")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else LINE_LENGTH)
    print(*_made(path, note), sep="\n")
    if note.command[1] == "tabulate" and note.stdin:
        _explain_cells(console, path, note, row, column)
    elif row or column:
        raise ValueError(f"{path} is no table; leave out --row and --column")
    else:
        shown: set[Path] = set()
        for each in note.inputs:
            console.print(_ancestry(each, note, shown))


def _explain_cells(console: Console, path: Path, note: Note, row: str | None, column: str | None) -> None:
    layout: TableLayout = parse(TableLayout, json.loads(note.stdin or ""), str(path))
    values = pd.read_csv(path.with_name(f"{layout.table}.csv"), index_col=0, dtype=str, comment="#").fillna("")
    cells = [
        cell for cell in layout.cells if (row or "") in cell.row and (column or "") in cell.column and cell.summaries
    ]
    if not cells:
        raise ValueError(f"{path}: no cell is at --row {row} --column {column}; the rows are {', '.join(layout.rows)}")
    shown: set[Path] = set()
    for cell in cells:
        found = values.loc[cell.row, cell.column] if cell.row in values.index and cell.column in values else ""
        tree = Tree(f"[bold]{escape(f'{cell.row} | {cell.column}')}[/]: {cell.metric} {found}")
        for each in cell.summaries:
            model = read_summary(_found(each, note)).model
            seed = tree.add(escape(f"run {model.run}, seed {model.seed}{_mlflow_run(_found(each, note))}"))
            seed.add(_ancestry(each, note, shown))
        console.print(tree)


def _mlflow_run(summary: Path) -> str:
    """The MLflow run of the model behind a summary, if its note names the model's folder."""
    note = read_note(summary)
    for each in note.inputs if note else ():
        found = Path(each).parent / RUN_FILE
        if found.exists() and (run_id := json.loads(found.read_text(encoding="utf-8")).get("run_id")):
            return f", MLflow run {run_id}"
    return ""


def _found(name: str, note: Note) -> Path:
    """Where a file is now that a command called `name`: from here, or from the folder in which it ran."""
    return Path(name) if Path(name).exists() else Path(note.folder) / name


def _ancestry(name: str, reader: Note, shown: set[Path]) -> Tree:
    """The tree of the notes of a file that `reader` names among its inputs. Files in `shown` are not repeated."""
    path, expected = _found(name, reader), reader.inputs.get(name)
    if not path.exists():
        return Tree(f"{escape(name)}  [red]is missing[/]")
    note, content = read_note(path), hash_file(path)
    label = f"{escape(str(path))}  [dim]sha256[/] {content[:HASH_LENGTH]}"
    if expected not in (None, content) or (note and note.sha256 != content):
        label += "  [red]was changed since[/]"
    if note is None:
        return Tree(f"{label}  [dim]given[/]")
    label += f"  [dim]{note.command[1]}, {note.started}, {note.seconds} s, {note.revision[:HASH_LENGTH]}[/]"
    label += "".join(f"  [yellow]warning: {escape(each)}[/]" for each in note.warnings)
    if path in shown:
        return Tree(f"{label}  [dim](above)[/]") if note.inputs else Tree(label)
    shown.add(path)
    tree = Tree(label)
    for each in note.inputs:
        tree.add(_ancestry(each, note, shown))
    return tree


def _made(path: Path, note: Note) -> Iterator[str]:
    yield f"{path}: sha256 {hash_file(path)}"
    if hash_file(path) != note.sha256:
        yield f"  CHANGED since it was made, as {note.sha256}"
    machine = ", ".join(f"{key} {value}" for key, value in note.machine.items())
    yield f"  made {note.started} in {note.seconds} s, git {note.revision}, settings {note.settings[:HASH_LENGTH]}"
    yield f"  on {machine}"
    yield "  with " + ", ".join(f"{name} {version}" for name, version in note.versions.items())
    yield from (f"  warning: {each}" for each in note.warnings)
    if note.workflow:
        yield f"  again: {note.workflow} --cores all --force -- {shlex.quote(str(path))}"
    yield f"  alone: {shlex.join(note.command)}" + (" <<< SETTINGS" if note.stdin else "")
    yield f"  in {note.folder}"
