"""Fetch a source of the catalogue: draw or obtain its files, and assemble them in one folder."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tseg.fetching.obtain import Wanted, link, manual_hint, obtain, sha256_of, wanted_files
from tseg.fetching.partial import partial_path
from tseg.fetching.pins import pins_path, read_pins, write_pins
from tseg.fetching.unpack import unpack
from tseg.files import require_file, warn, write_json
from tseg.locks import exclusive
from tseg.settings.catalogue import Catalogue, FilesSource, ShapesSource, Source


def fetch_sources(catalogue: Catalogue, raw_dir: Path, from_dir: Path | None = None) -> None:
    """Fetch all sources of `catalogue` and print their terms, checksums and counts.

    Continues after a source that fails, and raises ValueError with the reasons of all that did.
    """
    if from_dir:
        require_file(from_dir, "give --from a folder that exists")
    failures: list[str] = []
    for name, source in catalogue.items():
        if isinstance(source, FilesSource):
            print(f"{name}: {source.title}; licence: {source.licence}; cite: {source.citation}", flush=True)
        try:
            manifest = fetch_source(name, source, raw_dir, from_dir)
        except ValueError as error:
            failures.append(str(error))
            continue
        for file, entry in manifest.get("files", {}).items():
            print(f"{name}: {file} has sha256 {entry['sha256']}")
        print(f"{name}: " + ", ".join(f"{count:,} {unit}" for unit, count in manifest["counts"].items()))
    if failures:
        raise ValueError("\n".join(failures))


def fetch_source(name: str, source: Source, raw_dir: Path, from_dir: Path | None = None) -> dict[str, Any]:
    """Make the folder `raw_dir`/<name> of a source, write its manifest and return it.

    Shapes are drawn. The files of other sources go to `raw_dir`/downloads: a correct file there is used as it is;
    otherwise a copy below `from_dir` is linked, or the file is downloaded. The folder appears, or is replaced, only
    when complete. The manifest holds `source`, `counts`, and the `settings` of the drawing or the size and sha256 of
    each of the `files`. It does not depend on where the files came from.

    Raises ValueError, with a hint, if a file is wrong or unavailable, if the disk is too small, if a file is missing
    that the catalogue expects, or if another process is fetching the source.
    """
    if isinstance(source, ShapesSource):
        manifest = _draw(name, source, raw_dir)
    else:
        manifest = _fetch_files(name, source, raw_dir, from_dir)
    write_json(manifest_path(raw_dir, name), manifest)
    return manifest


def manifest_path(raw_dir: Path, source: str) -> Path:
    """Path of a source's manifest. If it exists, the folder beside it is complete."""
    return raw_dir / f"{source}.json"


def _draw(name: str, source: ShapesSource, raw_dir: Path) -> dict[str, Any]:
    """Draw shapes; return the manifest."""
    from tseg.datasets.shapes.draw import draw_shapes

    counts = draw_shapes(raw_dir / name, **source.model_dump(exclude={"kind"}))
    return {"source": name, "settings": source.model_dump(), "counts": counts}


def _fetch_files(name: str, source: FilesSource, raw_dir: Path, from_dir: Path | None) -> dict[str, Any]:
    """Obtain, verify, unpack and pin the files of a source; return the manifest."""
    with exclusive(raw_dir / "downloads" / f".{name}.lock", "is fetching this"):
        files = wanted_files(name, source, raw_dir, from_dir)
        _check_disk(name, files, raw_dir)
        files = _obtain_all(name, source, files, raw_dir)
        sums = {file.name: sha256_of(file) for file in files}
        num_files = _build(name, source, files, raw_dir)
        _pin(name, {file.name: sums[file.name] for file in files if not file.checksum}, raw_dir)
    return {
        "source": name,
        "files": {file.name: {"size": file.path.stat().st_size, "sha256": sums[file.name]} for file in files},
        "counts": {"files": num_files},
    }


def _check_disk(name: str, files: Sequence[Wanted], raw_dir: Path) -> None:
    """Raise ValueError unless the missing files fit on the disk with all archives unpacked, at their packed size."""
    needed = 0
    for file in files:
        present = next((path for path in (file.path, file.copy) if path and path.exists()), None)
        size = present.stat().st_size if present else file.entry.size or 0
        if not present:
            partial = partial_path(file.path)
            needed += max(0, size - (partial.stat().st_size if partial.exists() else 0))
        if file.entry.max_unpacked:
            needed += size
    free = shutil.disk_usage(raw_dir).free
    if needed > free:
        raise ValueError(
            f"{name} needs {needed:,} bytes for download and unpacking, but only {free:,} are free in {raw_dir}; "
            "make room or choose a folder on another disk"
        )


def _obtain_all(name: str, source: FilesSource, files: Sequence[Wanted], raw_dir: Path) -> list[Wanted]:
    """Obtain all files; return those that were obtained, all but some optional ones.

    Raises ValueError with one line per other file that failed.
    """
    failures: list[str] = []
    obtained: list[Wanted] = []
    for file in files:
        try:
            origin = obtain(file)
        except ValueError as error:
            failure = f"{error}; {manual_hint(file, source.page, pins_path(raw_dir, name))}"
            if file.entry.optional:
                warn(f"{name}: goes on without the optional file {file.name}: {failure}")
            else:
                failures.append(failure)
        else:
            obtained.append(file)
            print(f"{name}: {file.name}, {file.path.stat().st_size:,} bytes, {origin}", flush=True)
    if failures:
        raise ValueError("\n".join(failures))
    return obtained


def _pin(name: str, sums: dict[str, str], raw_dir: Path) -> None:
    """Pin the sha256 of new files without a published checksum."""
    if sums:
        write_pins(raw_dir, name, read_pins(raw_dir, name) | sums)
        print(f"{name}: no published checksum for {', '.join(sums)}; pinned in {pins_path(raw_dir, name)}")


def _build(name: str, source: FilesSource, files: Sequence[Wanted], raw_dir: Path) -> int:
    """Unpack or link the files into a folder and rename it into place; return its number of files."""
    partial_dir = raw_dir / f".{name}.partial"
    _remove(partial_dir)
    partial_dir.mkdir()
    try:
        num_files = 0
        for file in files:
            if file.entry.max_unpacked:
                num_files += unpack(file.path, partial_dir, file.entry.max_unpacked)
            else:
                link(file.path, partial_dir / file.name)
                num_files += 1
        missing = [path for path in source.becomes if not (partial_dir / path).exists()]
        if missing:
            raise ValueError(f"{name}: its files lack {', '.join(missing)}; fix the files or the catalogue's `becomes`")
        _replace(raw_dir / name, partial_dir, manifest_path(raw_dir, name))
    finally:
        _remove(partial_dir)
    return num_files


def _replace(dir: Path, finished: Path, manifest: Path) -> None:
    """Replace the folder `dir` with `finished`; `dir` is never incomplete."""
    old = dir.with_name(f".{dir.name}.old")
    _remove(old)
    manifest.unlink(missing_ok=True)  # it describes the old folder
    if dir.exists():
        dir.rename(old)
    finished.rename(dir)
    _remove(old)


def _remove(dir: Path) -> None:
    """Remove a folder with its contents; of a link to a folder, only the link."""
    if dir.is_symlink():
        dir.unlink()
    else:
        shutil.rmtree(dir, ignore_errors=True)
