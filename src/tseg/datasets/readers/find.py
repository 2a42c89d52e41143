"""Find the file that an annotation names, also if its name is spelt otherwise on the disk."""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from tseg.datasets.readers.annotations import RecordError


def find_file(name: str, folders: Sequence[Path], hint: str) -> tuple[Path, str]:
    """The path of the file `name` in the first folder that has it, and its name below that folder.

    If no folder has exactly this name, the first folder wins that has a file of the same name except for upper and
    lower case, composed letters, kinds of spaces and invisible characters. Raises RecordError, which ends in `hint`,
    if there is none, or if a folder has several.
    """
    try:
        for folder in folders:
            if (folder / name).is_file():
                return folder / name, name
        for folder in folders:
            found = [path for path in _alike(folder, PurePosixPath(name).parts) if path.is_file()]
            if len(found) > 1:
                names = " and ".join(str(path.relative_to(folder)) for path in found[:2])
                raise RecordError(f"could be {names} in {folder}; write the name of one of them exactly")
            if found:
                return found[0], found[0].relative_to(folder).as_posix()
    except OSError as error:  # a name that is too long
        raise RecordError(f"has a name that the file system refuses ({error}); correct the name") from error
    raise RecordError(f"is in none of {', '.join(map(str, folders))}; {hint}")


def _alike(folder: Path, parts: Sequence[str]) -> list[Path]:
    """The paths below `folder` that are spelt like `parts`; of an equal name, only this one."""
    paths = [folder]
    for part in parts:
        inside = [(path, _entries(path)) for path in paths if path.is_dir()]
        paths = [path / name for path, names in inside for name in _choose(names.get(_spelling(part), []), part)]
    return paths


def _choose(names: Sequence[str], name: str) -> Sequence[str]:
    return [name] if name in names else names


def _spelling(name: str) -> str:
    """A key that names share if they differ only as `find_file` permits."""
    seen = "".join(char for char in name if unicodedata.category(char) not in ("Cc", "Cf"))
    return " ".join(unicodedata.normalize("NFKC", seen).casefold().split())


def _entries(folder: Path) -> dict[str, list[str]]:
    return _read_entries(folder, folder.stat().st_mtime_ns)


@lru_cache(64)
def _read_entries(folder: Path, _modified: int) -> dict[str, list[str]]:
    """The names in a folder by their spelling. A folder that has changed is read again."""
    entries: dict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        entries[_spelling(path.name)].append(path.name)
    return dict(entries)
