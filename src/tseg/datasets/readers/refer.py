"""Read RefCOCO, RefCOCO+ and RefCOCOg in the layout of lichengunc/refer, one record per sentence."""

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

import numpy as np
from pycocotools import mask as coco_mask

from tseg.datasets.readers.annotations import (
    MAX_COORDINATE,
    OpenSplit,
    Record,
    RecordError,
    Skipped,
    field,
    image_size,
    make_record,
    region_points,
)
from tseg.datasets.readers.json_stream import stream_member
from tseg.datasets.readers.on_disk import Lookup, id_text
from tseg.files import require_file
from tseg.progress import progress
from tseg.records import encode_mask


class Reference(NamedTuple):
    """A reference in the pickle `file`, and its image's and region's entries in instances.json, if any."""

    file: Path
    content: Record
    image: Record | None
    region: Record | None


def open_refer(annotations: Path, split: str, split_by: str | None) -> OpenSplit:
    """Open the references of a split, one record per sentence, in the order of `refs(<split_by>).p`.

    `testA+testB` joins two splits. `file_name` is the name of the image without a folder. The pickle is loaded whole,
    as its format requires. Raises ValueError if a file is missing or damaged, or if the split does not exist.
    """
    pickles = ", ".join(sorted(path.name for path in annotations.glob("refs(*).p")))
    hint = f"set split_by to the name in parentheses in {pickles}" if pickles else "put the refer files there"
    path = require_file(annotations / f"refs({split_by}).p", hint)
    refs, wanted = read_refs(path), split.split("+")
    splits = sorted({id_text(ref.get("split")) for ref in refs})
    if unknown := set(wanted).difference(splits):
        raise ValueError(f"{path} has no split {min(unknown)!r}; choose one of {', '.join(splits)}")
    refs = [ref for ref in refs if ref.get("split") in wanted]
    images, regions = (
        Lookup(stream_member(annotations / "instances.json", key), "id", {id_text(ref.get(name)) for ref in refs})
        for key, name in (("images", "image_id"), ("annotations", "ann_id"))
    )
    return OpenSplit(stream_references(path, refs, images, regions), read_reference)


def stream_references(path: Path, refs: list[Record], images: Lookup, regions: Lookup) -> Iterator[Reference]:
    """Yield the references, in order, with their images and regions."""
    for ref in progress(refs, path.name, "references", len(refs)):
        image, region = images.get(id_text(ref.get("image_id"))), regions.get(id_text(ref.get("ann_id")))
        yield Reference(path, ref, image, region)


class PlainUnpickler(pickle._Unpickler):  # pyright: ignore[reportPrivateUsage]
    """An unpickler of containers, strings and numbers that calls nothing: a downloaded pickle cannot run code.

    It extends the unpickler written in Python. The one in C allocates as many memo entries as the pickle asks for, so
    that one damaged byte could exhaust the memory.
    """

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse to call anything."""
        raise ValueError(f"it wants to call {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse references to objects outside the file."""
        raise ValueError(f"it refers to {pid!r} outside the file")


def read_refs(path: Path) -> list[Record]:
    """Read the references of a pickle written by Python 2 or 3. Raises ValueError for any other content."""
    try:
        try:
            refs = PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="utf-8").load()
        except UnicodeDecodeError:  # Python 2 wrote some sentences as Latin-1
            refs = PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise errors of any type
        raise ValueError(f"{path} is not a plain pickle ({error}); fetch the official file again") from error
    if not isinstance(refs, list) or not all(isinstance(ref, dict) and has_sentences(ref) for ref in refs):
        raise ValueError(f"{path} does not hold a list of references with sentences; fetch the official file again")
    return refs


def has_sentences(ref: Record) -> bool:
    """Whether `ref` has a list of sentences, each a dict."""
    sentences = ref.get("sentences")
    return isinstance(sentences, list) and all(isinstance(sentence, dict) for sentence in sentences)


def read_reference(reference: Reference) -> Iterator[Record | Skipped]:
    """The records of the sentences of one reference, or why they are skipped; they share one mask."""
    ref, fault = reference.content, ""
    try:
        shared = describe_region(reference)
    except RecordError as reason:
        shared, fault = {}, str(reason)
    # ASSUME: a record is a sentence, so that means over records weigh sentences, not regions, as in peers' code.
    for sentence in ref["sentences"]:
        try:
            if fault:
                raise RecordError(fault)
            record_id = id_text(field(sentence, "sent_id", int))
            yield make_record(**shared, record_id=record_id, expression=field(sentence, "sent", str))
        except RecordError as reason:
            name = sentence.get("sent_id", f"a sentence of reference {id_text(ref.get('ref_id'))}")
            yield Skipped(reference.file, id_text(name), str(reason))


def describe_region(reference: Reference) -> Record:
    """The values that all records of a reference share. Raises RecordError."""
    _, ref, image, region = reference
    image_id, ann_id = id_text(ref.get("image_id")), id_text(ref.get("ann_id"))
    size = image_size(image, image_id, "instances.json")
    assert image is not None, "image_size raises for None"
    if region is None:
        raise RecordError(f"its annotation {ann_id} is not in instances.json; fetch both files from the same source")
    if id_text(region.get("image_id")) != image_id:
        raise RecordError(f"its annotation {ann_id} does not belong to image {image_id}; correct its image_id")
    return {
        "image_id": image_id,
        "file_name": field(image, "file_name", str),
        "size": size,
        "group_id": id_text(field(ref, "ref_id", int)),
        "mask": compress(region.get("segmentation"), size),
        "tags": [],
        "box": check_box(region.get("bbox")),
        "coco_id": image_id,
    }


def check_box(box: Any) -> list[float]:
    """Check a COCO box: x, y, width, height in pixels. It may differ from the box of the mask. Raises RecordError."""
    match box:
        case [int() | float(), int() | float(), int() | float() as width, int() | float() as height]:
            if all(abs(number) <= MAX_COORDINATE for number in box) and width > 0 and height > 0:
                return list(box)
        case _:
            pass
    raise RecordError("its bbox is not x, y, width, height; correct it in instances.json")


def compress(segmentation: Any, size: tuple[int, int]) -> str:
    """Convert a COCO segmentation to compressed RLE. Raises RecordError.

    It is a list of polygons, or run lengths, compressed or not, or a list of these; a list means the union.
    pycocotools is written in C and trusts its input, so all values are checked first.
    """
    match segmentation:
        case [_, *_] if all(isinstance(part, dict) for part in segmentation):
            parts: Any = [{"size": size, "counts": compress(part, size).encode("ascii")} for part in segmentation]
            return cast(bytes, coco_mask.merge(parts)["counts"]).decode("ascii")
        case [_, *_]:
            polygons = [points.ravel().tolist() for points in region_points(segmentation)]
            if min(map(len, polygons)) < 6:  # pycocotools reads two points as a box
                raise RecordError("its segmentation has a polygon of fewer than three points; remove the polygon")
            rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
            return cast(bytes, rle["counts"]).decode("ascii")
        case {"size": [height, width], "counts": list() | str() as counts}:
            if (height, width) != size:
                raise RecordError(
                    f"its mask is {width} x {height} pixels, its image {size[1]} x {size[0]}; correct one"
                )
            runs = run_lengths(counts) if isinstance(counts, str) else counts
            if any(type(run) is not int or run < 0 for run in runs) or sum(runs) != height * width:
                raise RecordError("the run lengths of its mask do not add up to the size of its image; correct them")
            return encode_mask(np.repeat(np.arange(len(runs)) % 2, runs).reshape(size, order="F"))
        case _:
            raise RecordError("its segmentation is neither polygons nor run lengths; write one of the two")


def run_lengths(counts: str) -> list[int]:
    """Decode COCO's compressed run lengths. Raises RecordError if they are damaged.

    Each character carries five bits of a number, low bits first; a sixth bit marks that more characters follow. The
    highest bit is the sign. From the fourth number on, a number is the difference to the run two before.
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
