"""The manifest of a stage of the audit: what its files hold, and what made them. Git versions it."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from tseg.evaluation.score import read_summary
from tseg.files import atomic_write, hash_file
from tseg.lineage import Note, read_note
from tseg.reporting.conditions import Conditions, check_unchanged, conditions_of
from tseg.settings.schema import StrictModel


class TableNumbers(BaseModel):
    """What `tseg audit` compares of a table's JSON."""

    mean: dict[str, dict[str, float]]
    """Row to column to number."""


class Content(StrictModel):
    """What a file holds; of a folder of raw data, what the files in it hold."""

    sha256: str
    bytes: int
    scores: dict[str, float] = Field(default_factory=dict)
    """In a summary its metrics but `empty` and the bounds of intervals, in a table all its means; in percent."""


class Manifest(Conditions):
    """The files of a stage, and what made them."""

    files: dict[str, Content]
    """Path to content, relative to the project. The path of a folder ends with /."""


def write_manifest(paths: Sequence[Path], output: Path) -> Manifest:
    """Describe files, and the folders beside manifests of sources, and write the manifest as JSON.

    Raises ValueError if a file was changed after it was made.
    """
    files = dict(sorted((name, content) for path in paths for name, content in _contents(path)))
    notes: list[Note] = []
    for path in paths:
        note = read_note(path)
        if note:
            check_unchanged(path, note, files[str(path)].sha256)
            notes.append(note)
    manifest = Manifest(**conditions_of(notes).model_dump(), files=files)
    with atomic_write(output) as partial:
        text = manifest.model_dump_json(indent=1, exclude_defaults=True)
        partial.write_text(text + "\n", encoding="utf-8")
    return manifest


def parse_manifest(text: str, origin: str) -> Manifest:
    """Read a manifest. Raises ValueError, which names its `origin`, if it is damaged."""
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(f"{origin} is no manifest of this version; make it again with `dvc repro`") from error


def content_of(path: Path) -> Content:
    """What a file or a folder holds now; of a folder its own files, without those of folders in it."""
    if path.is_dir():
        hashes = hashes_in(path)
        listing = "".join(f"{content} {name}\n" for name, content in hashes.items())
        size = sum((path / name).stat().st_size for name in hashes)
        return Content(sha256=hashlib.sha256(listing.encode()).hexdigest(), bytes=size)
    return Content(sha256=hash_file(path), bytes=path.stat().st_size, scores=_scores(path))


def hashes_in(folder: Path) -> dict[str, str]:
    """Name to SHA-256 of a folder's own files; empty if there is no such folder."""
    return {each.name: hash_file(each) for each in sorted(folder.glob("*")) if each.is_file()}


def _scores(path: Path) -> dict[str, float]:
    """The numbers of a summary or a table; none of another file, or of one that is neither any more."""
    try:
        if path.suffix == ".json" and path.parts[-4:-3] == ("scores",):
            metrics = read_summary(path).metrics
            judged = [name for name in metrics if not name.startswith("empty") and not name.endswith(("_low", "_high"))]
            return {name: round(100 * metrics[name], 4) for name in judged}
        if path.suffix == ".json" and path.with_name(f"{path.stem}_detail.csv").exists():
            rows = TableNumbers.model_validate_json(path.read_bytes()).mean
            return {f"{row}, {column}": value for row, values in rows.items() for column, value in values.items()}
    except ValueError:
        pass
    return {}


def _contents(path: Path) -> Iterator[tuple[str, Content]]:
    yield str(path), content_of(path)
    folder = path.with_suffix("")
    if path.suffix == ".json" and folder.is_dir():
        for each in (folder, *folder.rglob("*")):
            if each.is_dir() and any(below.is_file() for below in each.glob("*")):
                yield f"{each}/", content_of(each)
