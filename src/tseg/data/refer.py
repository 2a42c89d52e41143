"""RefCOCO, RefCOCO+ and RefCOCOg in the layout of lichengunc/refer, read into records: one per sentence."""

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
from pycocotools import mask as coco_mask

from tseg.data.annotations import (
    MAX_COORDINATE,
    Record,
    RecordError,
    Skipped,
    field,
    index,
    make_record,
    picture_size,
    polygon_points,
    read_json,
)
from tseg.files import existing
from tseg.records import encode_mask


def read_refer(annotations: Path, split: str, split_by: str | None) -> tuple[list[Record], list[Skipped]]:
    """The records of a split in the order of `refs(<split_by>).p`, and those left out; `testA+testB` is both.

    `file_name` is the bare name of the picture. Raises ValueError when a file is missing or damaged, and
    for a split that there is not.
    """
    there = ", ".join(sorted(path.name for path in annotations.glob("refs(*).p")))
    mend = f"set split_by to what stands in brackets in {there}" if there else "place the refer files there"
    path = existing(annotations / f"refs({split_by}).p", mend)
    refs, wanted = read_refs(path), split.split("+")
    splits = sorted({str(ref.get("split")) for ref in refs})
    if unknown := set(wanted).difference(splits):
        raise ValueError(f"{path} has no split {min(unknown)!r}; choose among {', '.join(splits)}")
    pictures, regions = read_instances(annotations / "instances.json")
    records, skipped = [], []
    for ref in refs:
        for sentence in ref["sentences"] if ref.get("split") in wanted else []:
            try:
                records.append(read_sentence(sentence, ref, pictures, regions))
            except RecordError as reason:
                name = sentence.get("sent_id", f"a sentence of reference {ref.get('ref_id')}")
                skipped.append(Skipped(path, str(name), str(reason)))
    return records, skipped


class PlainUnpickler(pickle.Unpickler):
    """Loads containers, strings and numbers, and calls nothing: a pickle from the network can run no code."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse whatever the pickle wants to call."""
        raise ValueError(f"it wants to call {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse references to what is outside the file."""
        raise ValueError(f"it refers to {pid!r} outside the file")


def read_refs(path: Path) -> list[Record]:
    """The references of a pickle, of Python 2 or 3. Raises ValueError when it holds or does anything else."""
    try:
        try:
            refs = PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="utf-8").load()
        except UnicodeDecodeError:  # Python 2 wrote some sentences as Latin-1
            refs = PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:  # whatever a broken pickle makes the unpickler stumble over
        raise ValueError(f"{path} is not a plain pickle ({error}); fetch the official file again") from error
    if not isinstance(refs, list) or not all(isinstance(ref, dict) and has_sentences(ref) for ref in refs):
        raise ValueError(f"{path} does not hold a list of references with sentences; fetch the official file again")
    return refs


def has_sentences(ref: Record) -> bool:
    """Whether `ref` has a list of sentences, each of them a dict."""
    sentences = ref.get("sentences")
    return isinstance(sentences, list) and all(isinstance(sentence, dict) for sentence in sentences)


def read_instances(path: Path) -> tuple[dict[str, Record], dict[str, Record]]:
    """The pictures and the annotations of a COCO file, by id."""
    instances = read_json(path, dict)
    try:
        return index(field(instances, "images", list), "id"), index(field(instances, "annotations", list), "id")
    except (RecordError, TypeError) as error:
        raise ValueError(f"{path} has no lists `images` and `annotations`; fetch the official file again") from error


def read_sentence(sentence: Record, ref: Record, pictures: dict[str, Record], regions: dict[str, Record]) -> Record:
    """The record of one sentence of the reference `ref`. Raises RecordError."""
    image_id, ann_id = str(ref.get("image_id")), str(ref.get("ann_id"))
    size = picture_size(pictures, image_id, "instances.json")
    if ann_id not in regions:
        raise RecordError(f"its annotation {ann_id} is not in instances.json; fetch both files from one place")
    region = regions[ann_id]
    if str(region.get("image_id")) != image_id:
        raise RecordError(f"its annotation {ann_id} is not one of picture {image_id}; mend its image_id")
    return make_record(
        record_id=str(field(sentence, "sent_id", int)),
        image_id=image_id,
        file_name=field(pictures[image_id], "file_name", str),
        size=size,
        expression=field(sentence, "sent", str),
        group_id=str(field(ref, "ref_id", int)),
        mask=compress(region.get("segmentation"), size),
        tags=[],
        box=check_box(region.get("bbox")),
        coco_id=image_id,
    )


def check_box(box: Any) -> list[float]:
    """A COCO box: x, y, width, height in pixels, often with parts too thin for the mask. Raises RecordError."""
    match box:
        case [int() | float(), int() | float(), int() | float() as width, int() | float() as height]:
            if all(abs(number) <= MAX_COORDINATE for number in box) and width > 0 and height > 0:
                return list(box)
    raise RecordError("its bbox is not x, y, width, height; mend it in instances.json")


def compress(segmentation: Any, size: tuple[int, int]) -> str:
    """The compressed RLE of a COCO segmentation: polygons, or run lengths in either form. Raises RecordError.

    pycocotools is written in C and trusts its input: only what has been checked reaches it.
    """
    match segmentation:
        case [_, *_]:
            polygons = [polygon_points(polygon).ravel().tolist() for polygon in segmentation]
            if min(map(len, polygons)) < 6:  # pycocotools would take two points for a box
                raise RecordError("its segmentation has a polygon of fewer than three points; mend the polygon")
            rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
            return cast(bytes, rle["counts"]).decode("ascii")
        case {"size": [height, width], "counts": list() | str() as counts}:
            if (height, width) != size:
                raise RecordError(f"its mask is {width} x {height} pixels, its picture {size[1]} x {size[0]}; mend one")
            runs = run_lengths(counts) if isinstance(counts, str) else counts
            if any(type(run) is not int or run < 0 for run in runs) or sum(runs) != height * width:
                raise RecordError("the run lengths of its mask do not add up to its picture; mend them")
            return encode_mask(np.repeat(np.arange(len(runs)) % 2, runs).reshape(size, order="F"))
    raise RecordError("its segmentation is neither polygons nor run lengths; mend it")


def run_lengths(counts: str) -> list[int]:
    """The run lengths in COCO's compressed form. Raises RecordError when it is none.

    A character carries five bits, the low ones first, and a sixth that says that more follow; the last bit is
    the sign. From the fourth on, a number is the change since the run before the last.
    """
    runs, number, shift = [], 0, 0
    for bits in (ord(character) - 48 for character in counts):
        if not 0 <= bits < 64:
            break
        number |= (bits & 31) << shift
        shift += 5
        if bits < 32:
            number -= (bits & 16) << (shift - 4)
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number, shift = 0, 0
    else:
        if not shift:
            return runs
    raise RecordError("the run lengths of its mask are damaged; fetch instances.json again")
