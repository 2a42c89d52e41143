"""Both stages of inference, from file to file, against the functions that they call."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tseg.encoding.encode import encode_images
from tseg.inference.masks import MaskRules, comparison
from tseg.inference.predict_file import predict_file
from tseg.inference.refine_file import refine_file
from tseg.inference.semantic import LabelRules
from tseg.model.tseg import TSEG, load_model, save_model
from tseg.provenance import MasksProvenance, PredictionsProvenance
from tseg.records import read, read_provenance
from tseg.segmenting.segmenter import Segmenter
from tseg.settings.encodings import CropViews, WholeViews
from tseg.training.batches import Sampling, WeakBatches

from ..provenances import model_provenance, predictions_provenance, records_provenance, write_records
from ..tables import label_records, mask_records, predict_records, pseudo_label_records

VIEWS: dict[str, Any] = {"resolution": 48, "scales": [1.0, 1.5], "flip": True, "window": 32}
PLAIN: dict[str, Any] = {"background": 0.2, "exclusive_activations": True, "threshold": "fixed", "confidence": 0.5}
PLAIN |= {"crf": None, "crf_backend": "lattice", "crf_background": None}
CPU = torch.device("cpu")


@pytest.fixture
def trained(model: TSEG, architecture: dict[str, Any], tmp_path: Path) -> Path:
    save_model(tmp_path / "model.safetensors", model, architecture, model_provenance(flip_words="swap"))
    return tmp_path / "model.safetensors"


def test_similarities_are_those_of_the_model_and_say_how_they_were_made(
    trained: Path, model: TSEG, records_path: Path, records: pd.DataFrame, tmp_path: Path
) -> None:
    predict_file(trained, records_path, tmp_path / "found.parquet", labels=None, device=CPU, **VIEWS)
    found, provenance = read(tmp_path / "found.parquet", PredictionsProvenance)
    expected = predict_records(model, records, words=None, flip_words="swap", **VIEWS).to_pandas()
    assert found["expression"].tolist() == expected["expression"].tolist()
    for one, other in zip(found["similarities"], expected["similarities"], strict=True):
        np.testing.assert_array_equal(one, other)
    assert provenance == predictions_provenance(
        model=model_provenance(flip_words="swap"), evaluated_on=records_provenance(), **VIEWS
    )


@pytest.mark.parametrize(
    ("crf", "threshold"), [(None, "fixed"), ("psa", "fixed"), ("pamr", "halfway"), (None, "oracle")]
)
def test_masks_are_those_of_the_similarities_and_say_how_they_were_made(
    trained: Path, records_path: Path, records: pd.DataFrame, tmp_path: Path, crf: str | None, threshold: str
) -> None:
    predict_file(trained, records_path, tmp_path / "found.parquet", labels=None, device=CPU, **VIEWS)
    how = PLAIN | {"crf": crf, "threshold": threshold}
    refine_file(tmp_path / "found.parquet", records_path, tmp_path / "masks.parquet", **how)
    masks, provenance = read(tmp_path / "masks.parquet", MasksProvenance)
    similarities, predicted = read(tmp_path / "found.parquet", PredictionsProvenance)
    expected = mask_records(records, similarities, MaskRules("mpa", threshold=threshold, crf=crf)).to_pandas()
    pd.testing.assert_frame_equal(masks, expected)
    del how["confidence"]
    assert provenance == MasksProvenance(predictions=predicted, comparison=comparison(threshold), **how)


def test_an_image_of_another_size_than_its_records_is_refused_by_every_command(
    trained: Path, model: TSEG, records_path: Path, records: pd.DataFrame, tmp_path: Path
) -> None:
    """Masks would lie elsewhere, and similarities be of other patches."""
    found, output = tmp_path / "found.parquet", tmp_path / "x.parquet"
    predict_file(trained, records_path, found, labels=None, device=CPU, **VIEWS)
    similarities, _ = read(found, PredictionsProvenance)
    of_words = predict_records(model, records, words=["dog"], flip_words="swap", **VIEWS).to_pandas()
    path = records["file_name"].iloc[0]
    image = Image.open(path)
    image.crop((0, 0, image.width, image.height - 1)).save(path)
    sizes = rf"{path} has {image.width} x {image.height - 1} pixels, and {image.width} x {image.height} in the records"
    crops = CropViews(resolution=32, num_views=1, scale=(1.0, 1.0), flip=False)
    sampling = Sampling(4, 2, 32, (1.0, 1.0), flip=False, flip_words="keep", seed=0)
    for command in (
        lambda: predict_file(trained, records_path, output, labels=None, device=CPU, **VIEWS),
        lambda: refine_file(found, records_path, output, **PLAIN),
        lambda: label_records(records, of_words, labels={"dog": ["dog"]}, rules=LabelRules(MaskRules("spa"), {})),
        lambda: pseudo_label_records(records, similarities, MaskRules("mpa"), 0.0),
        lambda: encode_images(model.image_encoder, records, crops, output),
        lambda: WeakBatches(records, sampling)[0],
    ):
        with pytest.raises(ValueError, match=sizes):
            command()


def test_threads_change_no_byte(trained: Path, records_path: Path, tmp_path: Path) -> None:
    for threads in (1, 3):
        found, masks = tmp_path / f"found{threads}.parquet", tmp_path / f"masks{threads}.parquet"
        predict_file(trained, records_path, found, labels=None, device=CPU, num_threads=threads, **VIEWS)
        refine_file(tmp_path / "found1.parquet", records_path, masks, num_threads=threads, **PLAIN | {"crf": "psa"})
    for name in ("found", "masks"):
        assert (tmp_path / f"{name}1.parquet").read_bytes() == (tmp_path / f"{name}3.parquet").read_bytes()


def test_an_image_that_cannot_be_read_is_named_whatever_the_number_of_threads(
    trained: Path, records_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes()[:60])
    for threads in (1, 3):
        with pytest.raises(ValueError, match=r"c\.png cannot be read as an image"):
            predict_file(
                trained, records_path, tmp_path / "x.parquet", labels=None, device=CPU, num_threads=threads, **VIEWS
            )
    assert not (tmp_path / "x.parquet").exists()


def test_bfloat16_is_close_to_float32_and_says_so(trained: Path, records_path: Path, tmp_path: Path) -> None:
    found: dict[str, np.ndarray] = {}
    for precision in ("float32", "bfloat16"):
        path = tmp_path / f"{precision}.parquet"
        predict_file(trained, records_path, path, labels=None, device=CPU, precision=precision, **VIEWS)
        table, provenance = read(path, PredictionsProvenance)
        found[precision] = np.concatenate(table["similarities"].to_list()).astype(np.float32)
        assert provenance.precision == precision
    error = np.abs(found["bfloat16"] - found["float32"])
    assert 0 < error.mean() < 0.02 * np.abs(found["float32"]).mean()
    with pytest.raises(ValueError, match="precision: there is no 'float16'"):
        predict_file(trained, records_path, tmp_path / "x", labels=None, device=CPU, precision="float16", **VIEWS)


def test_both_backends_of_the_crf_give_the_same_masks(trained: Path, records_path: Path, tmp_path: Path) -> None:
    predict_file(trained, records_path, tmp_path / "found.parquet", labels=None, device=CPU, **VIEWS)
    masks: list[pd.DataFrame] = []
    for backend in ("lattice", "pydensecrf"):
        path, how = tmp_path / f"{backend}.parquet", PLAIN | {"crf": "psa", "crf_backend": backend}
        refine_file(tmp_path / "found.parquet", records_path, path, **how)
        table, provenance = read(path, MasksProvenance)
        masks.append(table)
        assert (provenance.crf, provenance.crf_backend) == ("psa", backend)
    pd.testing.assert_frame_equal(*masks)


def test_damaged_predictions_are_named(trained: Path, records_path: Path, tmp_path: Path) -> None:
    """Each page has a checksum: no similarity changes unseen."""
    found = tmp_path / "found.parquet"
    predict_file(trained, records_path, found, labels=None, device=CPU, **VIEWS)
    content = found.read_bytes()
    pages = len(content) - int.from_bytes(content[-8:-4], "little") - 8
    refused = 0
    for position in range(4, pages, 131):
        found.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        try:
            refine_file(found, records_path, tmp_path / "x.parquet", **PLAIN)
        except ValueError as error:
            assert "found.parquet is damaged (" in str(error) and str(error).endswith("again with `tseg predict`")
            refused += 1
    assert refused >= 0.8 * len(range(4, pages, 131))  # not in every header of a page


def test_a_missing_package_of_the_crf_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tseg.inference.refinement.find_spec", lambda name: None)
    how = PLAIN | {"crf": "psa", "crf_backend": "pydensecrf"}
    with pytest.raises(ValueError, match="the backend pydensecrf needs the package pydensecrf2; install it, or choose"):
        refine_file(tmp_path / "absent", tmp_path / "absent", tmp_path / "x.parquet", **how)


def test_without_a_dense_crf_its_package_is_not_imported() -> None:
    code = "import sys, tseg.inference.refine_file, tseg.segmenting.segmenter; print('pydensecrf' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_predictions_of_a_version_without_views_are_refused(tmp_path: Path) -> None:
    """Their resolution was the longer side's."""
    old = predictions_provenance().to_fields()
    del old["window"]
    with pytest.raises(ValueError, match="is of another version; make it again with `tseg predict`"):
        PredictionsProvenance.from_fields(old, tmp_path / "old.parquet")


def test_words_of_classes_are_asked_of_every_image(trained: Path, tmp_path: Path, records: pd.DataFrame) -> None:
    rows = [row | {"tags": [], "ignore": None, "coco_id": None} for row in records.to_dict("records")]
    write_records(tmp_path / "voc.parquet", rows, classes=["red", "blue"])
    labels = {"red": ["red square", "red thing"], "blue": ["blue square"]}
    predict_file(trained, tmp_path / "voc.parquet", tmp_path / "found.parquet", labels=labels, device=CPU, **VIEWS)
    found, provenance = read(tmp_path / "found.parquet", PredictionsProvenance)
    words = ["red square", "red thing", "blue square"]
    assert found.groupby("image_id")["expression"].agg(list).tolist() == [words * 4] * records["image_id"].nunique()
    assert provenance.labels == labels


def test_labels_need_a_data_set_with_classes(trained: Path, records_path: Path, tmp_path: Path) -> None:
    labels = {"red": ["red"]}
    with pytest.raises(ValueError, match=r"records\.parquet: the data set has no classes; leave out --labels"):
        predict_file(trained, records_path, tmp_path / "found.parquet", labels=labels, device=CPU, **VIEWS)
    assert not (tmp_path / "found.parquet").exists()


def test_without_labels_an_image_is_asked_for_its_own_classes(
    trained: Path, records_path: Path, tmp_path: Path, records: pd.DataFrame
) -> None:
    """The predictions and masks are those of a data set without classes."""
    rows = [row | {"tags": [], "ignore": None, "coco_id": None} for row in records.to_dict("records")]
    write_records(tmp_path / "classes.parquet", rows, classes=sorted(set(records["expression"])))
    found: list[pd.DataFrame] = []
    for name, own in (("given", tmp_path / "classes.parquet"), ("plain", records_path)):
        output = tmp_path / f"{name}.parquet"
        predict_file(trained, own, output, labels=None, device=CPU, **VIEWS)
        refine_file(output, own, tmp_path / f"{name}-masks.parquet", **PLAIN)
        found.append(read(tmp_path / f"{name}-masks.parquet", MasksProvenance)[0])
    pd.testing.assert_frame_equal(*found)


def test_tokens_give_the_predictions_of_the_encoder(
    trained: Path, records_path: Path, tmp_path: Path, records: pd.DataFrame
) -> None:
    """To float16's rounding; tokens of other views are refused."""
    whole = VIEWS | {"window": None}
    encoder = load_model(trained)[0].image_encoder
    views = WholeViews(**{key: VIEWS[key] for key in ("resolution", "scales", "flip")})
    encode_images(encoder, records, views, tmp_path / "tokens.parquet")
    found: list[pd.DataFrame] = []
    for patches in (None, tmp_path / "tokens.parquet"):
        output = tmp_path / "found.parquet"
        predict_file(trained, records_path, output, labels=None, patches=patches, device=CPU, **whole)
        found.append(read(output, PredictionsProvenance)[0])
    for ours, theirs in zip(found[1]["similarities"], found[0]["similarities"], strict=True):
        np.testing.assert_allclose(ours.astype(np.float32), theirs.astype(np.float32), atol=0.03)
    other = whole | {"resolution": 64}
    with pytest.raises(ValueError, match="holds other views of the images"):
        predict_file(
            trained,
            records_path,
            output,
            labels=None,
            patches=tmp_path / "tokens.parquet",
            device=CPU,
            **other,
        )


def test_the_seed_and_the_data_stay_known_after_refinement(trained: Path, records_path: Path, tmp_path: Path) -> None:
    predict_file(trained, records_path, tmp_path / "found.parquet", labels=None, device=CPU, **VIEWS)
    refine_file(tmp_path / "found.parquet", records_path, tmp_path / "masks.parquet", **PLAIN)
    model = read_provenance(tmp_path / "masks.parquet", MasksProvenance).predictions.model
    assert (model.run, model.seed, model.trained_on.dataset) == ("squares-mpa", 0, "squares")


@pytest.mark.parametrize(("supervision", "pooling"), [("pseudo", None), ("weak", "gap")])
def test_a_student_has_the_masks_that_it_was_trained_on_and_not_those_of_its_teachers_pooling(
    model: TSEG,
    architecture: dict[str, Any],
    records_path: Path,
    records: pd.DataFrame,
    tmp_path: Path,
    supervision: str,
    pooling: str | None,
) -> None:
    provenance = model_provenance(supervision=supervision, pooling="gap", pooling_options={}, flip_words="swap")
    save_model(tmp_path / "model.safetensors", model, architecture, provenance)
    predict_file(tmp_path / "model.safetensors", records_path, tmp_path / "p.parquet", labels=None, device=CPU, **VIEWS)
    refine_file(tmp_path / "p.parquet", records_path, tmp_path / "masks.parquet", **PLAIN)
    similarities, _ = read(tmp_path / "p.parquet", PredictionsProvenance)
    expected = mask_records(records, similarities, MaskRules(pooling)).to_pandas()
    pd.testing.assert_frame_equal(read(tmp_path / "masks.parquet", MasksProvenance)[0], expected)
    assert Segmenter.from_pretrained(tmp_path).rules.pooling == pooling
