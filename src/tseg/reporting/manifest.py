"""The manifest of a stage of the audit: what its files hold, and what made them. Git versions it."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from tseg.evaluation.score import read_summary
from tseg.files import atomic_write, sha256
from tseg.lineage import read_note
from tseg.settings.schema import StrictModel


class Content(StrictModel):
    """What a file holds; of a folder of raw data, what all files in it hold."""

    sha256: str
    bytes: int
    score: float | None = None
    """The mIoU in a summary of scores, in [0, 1]."""


class Manifest(StrictModel):
    """The files of a stage."""

    versions: dict[str, str]
    """Library to the version that made the files; several are joined by commas."""
    processors: str
    """On which they were made, as `versions`."""
    files: dict[str, Content]
    """Path to content, relative to the project. The path of a folder ends with /."""


def write_manifest(paths: Sequence[Path], output: Path) -> Manifest:
    """Describe files, and the folders beside manifests of sources, and write the manifest as JSON."""
    notes = [note for path in paths if (note := read_note(path))]
    names = sorted({name for note in notes for name in note.versions})
    manifest = Manifest(
        versions={name: _join({note.versions.get(name, "not installed") for note in notes}) for name in names},
        processors=_join({note.machine.get("processor", "unknown") for note in notes}),
        files=dict(sorted((name, content) for path in paths for name, content in _contents(path))),
    )
    with atomic_write(output) as partial:
        partial.write_text(manifest.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8")
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
    score = None
    if path.suffix == ".json" and "scores" in path.parts:
        with suppress(ValueError):  # a file that is no summary any more
            score = read_summary(path).metrics["mIoU"]
    return Content(sha256=sha256(path), bytes=path.stat().st_size, score=score)


def hashes_in(folder: Path) -> dict[str, str]:
    """Name to SHA-256 of a folder's own files; empty if there is no such folder."""
    return {each.name: sha256(each) for each in sorted(folder.glob("*")) if each.is_file()}


def _join(found: set[str]) -> str:
    return ", ".join(sorted(found))


def _contents(path: Path) -> Iterator[tuple[str, Content]]:
    yield str(path), content_of(path)
    folder = path.with_suffix("")
    if path.suffix == ".json" and folder.is_dir():
        for each in (folder, *folder.rglob("*")):
            if each.is_dir() and any(below.is_file() for below in each.glob("*")):
                yield f"{each}/", content_of(each)
