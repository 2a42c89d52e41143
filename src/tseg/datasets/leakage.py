"""Images that two data sets share: RefCOCO's are COCO's, and so are about half of PhraseCut's.

Between data sets an image is known by its id in COCO alone, which 2014 and 2017 have in common.
"""

import re
from collections.abc import Collection
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from tseg.files import atomic_write, require_file
from tseg.provenance import RecordsProvenance
from tseg.records import read_provenance

IMAGES = ["dataset", "image_id", "coco_id"]
"""Columns of a list of images, a row each; `coco_id` is null where an image is not known to be COCO's."""

_COCO_NAME = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_)?(\d{12})\.jpg")


def coco_id_of(file_name: str) -> str | None:
    """The id in COCO of an image that is called as COCO calls it, in whatever folder; None of any other name.

    2014 calls them COCO_train2014_000000123456.jpg, 2017 calls them 000000123456.jpg; the id of both is 123456.
    """
    named = _COCO_NAME.fullmatch(Path(file_name).name)
    return str(int(named[1])) if named else None


def coco_ids(records: pd.DataFrame) -> frozenset[str]:
    """The ids in COCO of the images of `records`, as far as they are known."""
    return frozenset(records["coco_id"].dropna())


def without_images(records: pd.DataFrame, coco_ids: Collection[str]) -> tuple[pd.DataFrame, int]:
    """The records, in order, of images whose id in COCO is not among `coco_ids`; the number of images excluded.

    An image that has no such id stays. Raises ValueError when no image is left.
    """
    kept = records.loc[~records["coco_id"].isin(list(coco_ids))].reset_index(drop=True)
    num_excluded = len(set(records["image_id"])) - len(set(kept["image_id"]))
    if kept.empty:
        raise ValueError(f"all {num_excluded} images are excluded, none is left to train on; exclude fewer")
    return kept, num_excluded


def shared_images(train: pd.DataFrame, evaluation: pd.DataFrame) -> frozenset[str]:
    """The image_id of each image of `evaluation` that is an image of `train`; both have the columns `IMAGES`.

    It is one by its id in COCO, and by its image_id where both are of one data set. `evaluation` is of one.
    """
    same_dataset = train.loc[train["dataset"].isin(evaluation["dataset"]), "image_id"]
    shared = evaluation["coco_id"].isin(list(coco_ids(train))) | evaluation["image_id"].isin(same_dataset)
    return frozenset(evaluation.loc[shared, "image_id"])


def list_images(records: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The images of `records`, which are of the data set so called, in order: the columns `IMAGES`."""
    images = records.loc[~records["image_id"].duplicated(), ["image_id", "coco_id"]].reset_index(drop=True)
    images.insert(0, "dataset", dataset)
    return images


def read_records_images(path: Path) -> pd.DataFrame:
    """`list_images` of a file that `tseg prepare` wrote, whose other columns are not read.

    Raises ValueError for a file of another kind, and for one that an earlier version wrote without ids in COCO.
    """
    dataset = read_provenance(path, RecordsProvenance).dataset
    if "coco_id" not in pq.read_schema(path).names:
        raise ValueError(f"{path} lacks the column 'coco_id'; make it again with `tseg prepare`")
    return list_images(pq.read_table(path, columns=["image_id", "coco_id"]).to_pandas(), dataset)


def write_images(path: Path, images: pd.DataFrame) -> None:
    """Write a list of images, each row once, as CSV: whole or not at all."""
    with atomic_write(path) as partial:
        images[IMAGES].drop_duplicates().to_csv(partial, index=False)


def read_images(path: Path) -> pd.DataFrame:
    """What `write_images` wrote. Raises ValueError for a file that is missing or of another kind."""
    hint = "give the images.csv that `tseg train` writes beside its model, or train it again"
    try:
        # Only a missing id in COCO is null: an image may be called NA.
        images = pd.read_csv(require_file(path, hint), dtype=str, keep_default_na=False, na_values={"coco_id": [""]})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a list of images ({error}); {hint}") from None
    if list(images.columns) != IMAGES:
        raise ValueError(f"{path} does not have the columns {', '.join(IMAGES)}; {hint}")
    return images
