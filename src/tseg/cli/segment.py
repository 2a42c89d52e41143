"""`tseg segment`: segment phrases in your own images."""

import os
import sys
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import Crf, Device, Threshold, preset, threshold_rule


def segment(
    images: Annotated[list[str], typer.Argument(help="Image files, folders of images, or patterns such as '*.jpg'.")],
    model: Annotated[
        str, typer.Option(help="Model file, folder of a training, or owner/name on the Hugging Face Hub.")
    ],
    phrase: Annotated[list[str] | None, typer.Option(help="A phrase to segment; repeat the option for more.")] = None,
    phrases: Annotated[Path | None, typer.Option(help="Text file with a phrase on each line.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder to write to. Default: segmented, unless --json is given."),
    ] = None,
    json: Annotated[
        str | None, typer.Option(help="File to write all masks to, in COCO's format; - is standard output.")
    ] = None,
    heatmaps: Annotated[bool, typer.Option("--heatmaps", help="Write the probability of every pixel too.")] = False,
    threshold: Threshold = "fixed",
    crf: Crf = "none",
    scale: Annotated[
        list[float] | None,
        typer.Option(min=0.1, help="See the image at this scale; repeat it for several. Default: 1."),
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="See the mirror image too.")] = False,
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Shorter side of the encoder's input in pixels. Default: as in training.")
    ] = None,
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Number of CPU threads. Default: all.")] = None,
) -> None:
    """Segment phrases in images of your own.

    tseg segment photo.jpg --phrase "red umbrella" --phrase cat --model results/runs/phrasecut-mpa/seed0

    Writes, for each image, a folder of its name: a black and white mask per
    phrase, and an overlay of all. An image that fails does not stop the
    others. Exit status: 0 if all went well, 1 for wrong input, 2 for a wrong
    command line, 3 if some images failed.
    """
    from tseg.files import write_json
    from tseg.model.device import select_device
    from tseg.segmenting.image_files import all_phrases, find_images, segment_files
    from tseg.segmenting.segmenter import Segmenter

    how = {"threshold": threshold_rule(threshold), "crf": preset(crf), "scales": scale or [1.0], "flip": flip}
    if heatmaps and output is None and json is not None:
        raise ValueError("--heatmaps are written as images; add --output FOLDER")
    if output is None and json is None:
        output = Path("segmented")
    asked, files = all_phrases(phrase or [], phrases), find_images(images, output)
    chosen = str(select_device(device, threads or os.cpu_count() or 1))
    segmenter = Segmenter.from_pretrained(model, device=chosen, resolution=resolution)
    found = segment_files(segmenter, files, asked, output=output, heatmaps=heatmaps, **how)
    if json == "-":
        print(dumps(found.coco, indent=2, sort_keys=True))
    elif json is not None:
        write_json(Path(json), found.coco)
    out = sys.stderr if json == "-" else sys.stdout
    for line in found.lines:
        print(line, file=out)
    if output is not None and found.lines:
        print(f"masks and overlays are in {output}", file=out)
    if found.failures:
        print(f"tseg: {len(found.failures)} of {len(files)} images failed:", *found.failures, sep="\n", file=sys.stderr)
        raise typer.Exit(3)
