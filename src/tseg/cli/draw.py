"""`tseg draw`: figures of masks, classes, patch assignments and losses."""

from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import Output, Records, parse_text

draw = typer.Typer(name="draw", no_args_is_help=True, help="Draw a figure of masks, classes, patches or losses.")

Files = Annotated[list[Path], typer.Argument(help="Outputs of `tseg refine`, one per column.")]
Labels = Annotated[list[str], typer.Option("--label", help="Label of a column; give one per file, in the same order.")]
Title = Annotated[str, typer.Option("--title", help="Title of the figure.")]
Caption = Annotated[str, typer.Option("--caption", help="Caption of the figure; an explanation follows it.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the random choice of images.")]
NumPanels = Annotated[int, typer.Option("--num-panels", min=1, help="Number of images, drawn at random.")]


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
    """Draw a row per record: the image, the true mask, and the mask and IoU of each run."""
    from tseg.reporting.draw import mask_figure

    mask_figure(files, label, records, output, num_panels=num_panels, seed=seed, title=title, caption=caption)


@draw.command()
def expressions(
    file: Annotated[Path, typer.Argument(help="Output of `tseg refine`.")],
    records: Records,
    output: Output,
    title: Title = "Expressions",
    caption: Caption = "",
    seed: Seed = 0,
    num_panels: NumPanels = 6,
) -> None:
    """Draw a row per image: the predicted and true masks, one colour per expression."""
    from tseg.reporting.draw import expression_figure

    expression_figure(file, records, output, num_panels=num_panels, seed=seed, title=title, caption=caption)


@draw.command()
def classes(
    files: Files,
    label: Labels,
    records: Records,
    output: Output,
    only: Annotated[list[str] | None, typer.Option(help="Draw only images with this class; repeatable.")] = None,
    title: Title = "Classes",
    caption: Caption = "",
    seed: Seed = 0,
    num_panels: NumPanels = 6,
) -> None:
    """Draw a row per image of a data set with classes: the predicted label maps and the true one."""
    from tseg.reporting.draw import class_figure

    class_figure(
        files,
        label,
        records,
        output,
        only=only,
        num_panels=num_panels,
        seed=seed,
        title=title,
        caption=caption,
    )


@draw.command()
def assignment(
    file: Annotated[Path, typer.Argument(help="Output of `tseg predict`.")],
    records: Records,
    output: Output,
    title: Title = "Assignment of patches",
    caption: Caption = "",
) -> None:
    """Compare how SPA and MPA assign patches that two expressions share (Figure 3 of the paper)."""
    from tseg.reporting.draw import assignment_figure

    assignment_figure(file, records, output, title=title, caption=caption)


@draw.command()
def curves(
    output: Output,
    files: Annotated[
        list[Path] | None, typer.Argument(help="Files <run>/seed<k>/history.csv, one per curve, in one panel.")
    ] = None,
    panels: Annotated[
        str, typer.Option(help="JSON object: more files, each with the title of its panel.", show_default=False)
    ] = "{}",
    title: Title = "Training loss",
    caption: Caption = "",
) -> None:
    """Draw the learning curves of training runs."""
    from tseg.reporting.draw import curve_figure

    titles = dict.fromkeys(files or [], "loss") | parse_text(dict[Path, str], panels, "--panels")
    curve_figure(titles, output, title=title, caption=caption)
