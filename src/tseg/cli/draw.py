"""`tseg draw`: figures of masks, of classes, of the assignment of patches, of losses."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tseg.cli.options import Output, Records, parse_text

if TYPE_CHECKING:
    import pandas as pd

draw = typer.Typer(name="draw", no_args_is_help=True, help="Draw a figure of masks, classes, patches or losses.")

Files = Annotated[list[Path], typer.Argument(help="What `tseg refine` wrote, a column each.")]
Labels = Annotated[list[str], typer.Option("--label", help="Over a column; one for each file, in their order.")]
Title = Annotated[str, typer.Option("--title", help="Over the figure, before the name of the data.")]
Caption = Annotated[str, typer.Option("--caption", help="Under the figure, before what it says of itself.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Another seed draws other images.")]
NumPanels = Annotated[int, typer.Option("--num-panels", min=1, help="Images to draw, chosen at random.")]


@draw.command()
def masks(
    files: Files,
    label: Labels,
    records: Records,
    output: Output,
    title: Title = "Masks",
    caption: Caption = "",
    seed: Seed = 0,
    num_panels: NumPanels = 6,
) -> None:
    """A row per record: image, truth, and the mask of each run with its IoU."""
    from tseg.reporting.figures.masks import draw_masks

    table, about = _shown(records, title, caption)
    draw_masks(table, _tables(files, label), output, num_panels=num_panels, seed=seed, **about)


@draw.command()
def expressions(
    file: Annotated[Path, typer.Argument(help="What `tseg refine` wrote.")],
    records: Records,
    output: Output,
    title: Title = "Expressions",
    caption: Caption = "",
    seed: Seed = 0,
    num_panels: NumPanels = 6,
) -> None:
    """A row per image: all its expressions in their colours, predicted and true."""
    from tseg.records import read_table
    from tseg.reporting.figures.masks import draw_expressions

    table, about = _shown(records, title, caption)
    draw_expressions(table, read_table(file), output, num_panels=num_panels, seed=seed, **about)


@draw.command()
def classes(
    files: Files,
    label: Labels,
    records: Records,
    output: Output,
    only: Annotated[list[str] | None, typer.Option(help="Draw among images with this class; repeat it.")] = None,
    title: Title = "Classes",
    caption: Caption = "",
    seed: Seed = 0,
    num_panels: NumPanels = 6,
) -> None:
    """A row per image of a data set with classes: the label map of each run, and the truth."""
    from tseg.records import read_metadata
    from tseg.reporting.figures.classes import draw_classes

    names = read_metadata(records)["classes"]
    if not names:
        raise ValueError(f"{records} is of a data set without classes; draw masks or expressions")
    table, about = _shown(records, title, caption)
    draw_classes(table, _tables(files, label), names, output, only=only, num_panels=num_panels, seed=seed, **about)


@draw.command()
def assignment(
    file: Annotated[Path, typer.Argument(help="What `tseg predict` wrote.")],
    records: Records,
    output: Output,
    title: Title = "Assignment of patches",
    caption: Caption = "",
) -> None:
    """Figure 3 of the paper: what SPA and MPA make of the same similarities where two expressions share patches."""
    from tseg.records import read_table
    from tseg.reporting.figures.assignment import draw_assignment

    table, about = _shown(records, title, caption)
    draw_assignment(table, read_table(file), output, **about)


@draw.command()
def curves(
    files: Annotated[list[Path], typer.Argument(help="<run>/seed<k>/history.csv, a curve each.")],
    output: Output,
    panels: Annotated[str, typer.Option(help="Run to the name of its panel, as JSON; absent: all in one.")] = "{}",
    title: Title = "Loss while training",
    caption: Caption = "",
) -> None:
    """Learning curves of trainings."""
    import pandas as pd

    from tseg.reporting.figures.curves import draw_learning_curves

    histories = {"/".join(path.resolve().parts[-3:-1]): pd.read_csv(path) for path in files}
    of_run = parse_text(dict[str, str], panels, "--panels")
    names = {label: of_run.get(label.partition("/")[0], "loss") for label in histories}
    draw_learning_curves(histories, output, panels=names, title=title, caption=caption)


def _tables(files: list[Path], labels: list[str]) -> dict[str, "pd.DataFrame"]:
    from tseg.records import read_table

    if len(set(labels)) != len(files) or len(labels) != len(files):
        raise ValueError(f"--label: {len(files)} files need as many different labels, not {', '.join(labels)}")
    return {label: read_table(path) for label, path in zip(labels, files, strict=True)}


def _shown(records: Path, title: str, caption: str) -> tuple["pd.DataFrame", dict[str, Any]]:
    """The records, and the texts of their figure, which say what data it shows."""
    from tseg.records import read_metadata, read_records
    from tseg.reporting.tables.notes import data_met

    return read_records(records), {"title": f"{title}: {data_met(read_metadata(records))}", "caption": caption}
