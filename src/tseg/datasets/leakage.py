"""Images that two data sets share: the RefCOCOs consist of COCO images, and so does about half of PhraseCut.

Images of different data sets are compared by COCO id only. COCO's releases of 2014 and 2017 share these ids.
"""

import re
from collections.abc import Collection
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from tseg.files import atomic_write, require_file
from tseg.provenance import RecordsProvenance
from tseg.records import read_provenance

COLUMNS = ["dataset", "image_id", "coco_id"]
"""Columns of a list of images, one row per image; `coco_id` is null if the image is not known to be in COCO."""

_COCO_NAME = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_)?(\d{12})\.jpg", re.IGNORECASE)


def coco_id_of(file_name: str) -> str | None:
    """The COCO id in the name of a file, in any folder; None if the name is not one of COCO's.

    COCO_train2014_000000123456.jpg (2014) and 000000123456.jpg (2017) both have the id 123456.
    """
    match = _COCO_NAME.fullmatch(Path(file_name).name)
    return str(int(match[1])) if match else None


def coco_ids(records: pd.DataFrame) -> frozenset[str]:
    """The known COCO ids of the images of `records`."""
    return frozenset(records["coco_id"].dropna())


def without_images(records: pd.DataFrame, coco_ids: Collection[str]) -> tuple[pd.DataFrame, int]:
    """The records, in order, whose image has none of these COCO ids; and the number of images excluded.

    Images without a COCO id are kept. Raises ValueError if no image is left.
    """
    kept = records.loc[~records["coco_id"].isin(list(coco_ids))].reset_index(drop=True)
    num_excluded = len(set(records["image_id"])) - len(set(kept["image_id"]))
    if kept.empty:
        raise ValueError(f"all {num_excluded} images are excluded and none is left to train on; exclude fewer images")
    return kept, num_excluded


def shared_images(train: pd.DataFrame, evaluation: pd.DataFrame) -> frozenset[str]:
    """The image_id of each image of `evaluation` that is also in `train`; both are lists with the columns `COLUMNS`.

    Images match by COCO id and, within one data set, also by image_id. `evaluation` holds a single data set.
    """
    same_dataset = train.loc[train["dataset"].isin(evaluation["dataset"]), "image_id"]
    shared = evaluation["coco_id"].isin(list(coco_ids(train))) | evaluation["image_id"].isin(same_dataset)
    return frozenset(evaluation.loc[shared, "image_id"])


def list_images(records: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The distinct images of the records of `dataset`, in order, with the columns `COLUMNS`."""
    images = records.loc[~records["image_id"].duplicated(), ["image_id", "coco_id"]].reset_index(drop=True)
    images.insert(0, "dataset", dataset)
    return images


def read_records_images(path: Path) -> pd.DataFrame:
    """Apply `list_images` to a file of records, reading only the columns it needs.

    Raises ValueError for a file of another kind, or of an earlier version without COCO ids.
    """
    dataset = read_provenance(path, RecordsProvenance).dataset
    if "coco_id" not in pq.read_schema(path).names:
        raise ValueError(f"{path} lacks the column 'coco_id'; make it again with `tseg prepare`")
    return list_images(pq.read_table(path, columns=["image_id", "coco_id"]).to_pandas(), dataset)


def write_images(path: Path, images: pd.DataFrame) -> None:
    """Write the distinct rows of a list of images as CSV, atomically."""
    with atomic_write(path) as partial:
        images[COLUMNS].drop_duplicates().to_csv(partial, index=False)


def read_images(path: Path) -> pd.DataFrame:
    """Read what `write_images` wrote. Raises ValueError if the file is missing or of another kind."""
    hint = "give the images.csv that `tseg train` writes beside its model, or train the model again"
    try:
        # Only an empty COCO id is null, as an image_id may be "NA".
        images = pd.read_csv(require_file(path, hint), dtype=str, keep_default_na=False, na_values={"coco_id": [""]})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a list of images ({error}); {hint}") from None
    if list(images.columns) != COLUMNS:
        raise ValueError(f"{path} does not have the columns {', '.join(COLUMNS)}; {hint}")
    return images
