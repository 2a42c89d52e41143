"""`tseg segment` and the workflow see the same pixels of a photograph that EXIF turns."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tseg import Segmenter
from tseg.datasets.prepare import prepare_split
from tseg.inference.masks import MaskRules
from tseg.model.tseg import TSEG
from tseg.records import decode_mask, read_records
from tseg.settings.schema import DatasetSettings

from ..tables import mask_records, predict_records


@pytest.mark.parametrize("orientation", [3, 6])
def test_segment_and_the_workflow_turn_a_photograph_alike(
    model: TSEG, save: Callable[..., Path], tmp_path: Path, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", exif=exif)
    before = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "train.csv").write_text("image,phrase\nphoto.jpg,red square\n")
    pairs = {"format": "pairs", "annotations": str(tmp_path), "images": [str(tmp_path)]}
    prepare_split("mine", "train", DatasetSettings(**pairs, train="train", evaluation="train"), tmp_path / "r.parquet")
    records, _ = read_records(tmp_path / "r.parquet")
    options = {"words": None, "resolution": 48, "scales": [1.0], "flip": False, "flip_words": "keep"}
    predictions = predict_records(model, records, **options).to_pandas()
    (rle,) = mask_records(records, predictions, MaskRules("mpa")).to_pandas()["mask"]
    by_workflow = decode_mask(rle, records["height"][0], records["width"][0])

    segmenter = Segmenter.from_pretrained(save(pooling="mpa", resolution=48))
    file, _ = segmenter(tmp_path / "photo.jpg", "red square").save_pngs(tmp_path / "out")
    by_segment = np.asarray(Image.open(file))
    assert by_workflow.any() and not by_workflow.all()
    assert by_segment.shape == by_workflow.shape == ((64, 40) if orientation == 6 else (40, 64))
    assert (by_segment != by_workflow).mean() < 0.005  # the workflow rounds similarities to float16
    assert (tmp_path / "photo.jpg").read_bytes() == before
