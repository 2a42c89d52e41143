"""The instructions of docs/own-data.md work as printed, from images and phrases to masks."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from .reader import blocks_of, copy_project, run

SIZE = 80, 60
RECORDS = "data/records/mine"


def blocks(kind: str) -> list[str]:
    """The blocks of a kind on the page, in order."""
    return [text for name, text in blocks_of("docs/own-data.md") if name == kind]


def draw_data(folder: Path) -> None:
    """Write the tables of the page, the images and masks that they name, and the photograph that it segments."""
    for name, table in zip(("train", "val"), blocks("csv"), strict=True):
        (folder / f"{name}.csv").write_text(table, encoding="utf-8")
        for number, row in enumerate(csv.DictReader(io.StringIO(table))):
            path = folder / "images" / row["image"]
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(number).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
            if row.get("mask"):
                (folder / row["mask"]).parent.mkdir(exist_ok=True)
                Image.fromarray(noise[..., 0] > 200).save(folder / row["mask"])
    rotated = Image.Exif()
    rotated[0x0112] = 6  # by 90 degrees
    Image.new("RGB", SIZE, "red").save(folder / "images/garden/001.jpg", exif=rotated)
    Image.new("RGB", SIZE, "blue").save(folder.parent / "photo.jpg")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the files of the page and fewer iterations."""
    folder = tmp_path_factory.mktemp("reader")
    copy_project(folder)
    (folder / "my-data").mkdir()
    draw_data(folder / "my-data")
    settings, experiments = blocks("yaml")
    assert "{mine: 2000}" in settings
    (folder / "mine.yaml").write_text(settings.replace("{mine: 2000}", "{mine: 3}"))
    (folder / "mine-experiments.yaml").write_text(experiments)
    default = yaml.safe_load((folder / "config/config.yaml").read_text())
    default["tracking_uri"] = None
    default["training"]["weak"]["resolution"] = 48
    (folder / "config/config.yaml").write_text(yaml.safe_dump(default))
    return folder


def test_the_pages_lines_lead_from_images_and_phrases_to_masks_and_scores(project: Path) -> None:
    to_masks, at_scale, to_scores = blocks("sh")
    output = run(project, "bash", "-ec", to_masks)
    for number, phrase in enumerate(("red umbrella", "cat"), 1):
        assert f"masks/photo-{number}-overlay.png: {phrase}, " in output
        with Image.open(project / f"masks/photo-{number}-mask.png") as mask:
            assert (mask.mode, mask.size) == ("1", SIZE)
    with Image.open(project / "results/mine/figures/mine.png") as figure:
        figure.verify()

    records = pd.read_parquet(project / RECORDS / "train.parquet")
    assert records["expression"].tolist()[1:3] == ["red umbrella, folded", "red umbrella"]
    assert records["mask"].isna().all()
    turned = records.loc[records["image_id"] == "garden/001.jpg", ["width", "height"]]
    assert turned.to_numpy().tolist() == [list(SIZE[::-1])] * 2  # the image that is stored on its side
    seen = pd.read_csv(project / "results/mine/runs/mine-mpa/seed0/images.csv")
    assert len(seen) == records["image_id"].nunique()

    run(project, "bash", "-ec", to_scores)
    summary = json.loads((project / "results/mine/scores/mine-mpa/seed0/mine-val-plain.json").read_text())
    assert (summary["num_records"], summary["num_without_mask"]) == (2, 1)
    assert "rule train:" in run(project, "bash", "-ec", at_scale)
