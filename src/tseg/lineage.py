"""What made each file: a note in the folder `.made` beside it. Its own bytes do not say when and where it was made."""

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tseg import files
from tseg.files import write_json

FOLDER = ".made"


class Note(BaseModel):
    """How a sub-command made a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    """Of the file when it was made."""
    command: list[str]
    """The words of the command line, from `tseg` on."""
    stdin: str | None
    """What the command read from standard input: settings as JSON."""
    settings: str
    """Hash of `command` and `stdin`."""
    inputs: dict[str, str]
    """Path of each file that the command read, as it named them, to its SHA-256; images and mask files are left out."""
    folder: str
    """The working directory."""
    revision: str
    """The git commit of the working directory, with -dirty appended if files differed; `unknown` without git."""
    versions: dict[str, str]
    """Of Python, tseg and the libraries that it requires."""
    machine: dict[str, str]
    started: str
    """UTC, ISO 8601. Of a command that went on after an interruption: of its last start."""
    seconds: float
    """Since `started`."""
    warnings: list[str]
    """What the command warned of."""


def note_path(path: Path) -> Path:
    """The file that holds the note of `path`."""
    return path.parent / FOLDER / f"{path.name}.json"


def read_note(path: Path) -> Note | None:
    """The note of `path`; None without one. Raises ValueError if it is damaged or of another version."""
    noted = note_path(path)
    try:
        return Note.model_validate_json(noted.read_bytes()) if noted.exists() else None
    except ValidationError:
        raise ValueError(f"{noted} is damaged or of another version; make {path} again") from None


def warnings_of(*folders: Path) -> dict[str, list[Path]]:
    """Each warning of the commands that made the files of `folders`, and those files that are still there."""
    found: dict[str, list[Path]] = {}
    for noted_path in sorted(path for folder in folders for path in folder.rglob(f"{FOLDER}/*.json")):
        path = noted_path.parent.parent / noted_path.stem
        if path.exists():
            with suppress(ValueError):  # of an earlier version
                note = read_note(path)
                for text in note.warnings if note else ():
                    found.setdefault(text, []).append(path)
    return found


@contextmanager
def noted(command: Sequence[str]) -> Generator[None]:
    """Write a note for each file that the body writes and that is there at its end, unless the body fails.

    Warnings of this package are printed in one line and become a part of the notes.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    warnings.showwarning = _remember_warning
    try:
        yield
    except SystemExit as ended:
        if ended.code not in (0, None):
            raise
        _write_notes(command, started, time.monotonic() - clock)
        raise
    _write_notes(command, started, time.monotonic() - clock)


def _remember_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    if not (category is UserWarning and Path(filename).is_relative_to(Path(__file__).parent)):
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))
        return
    print(f"tseg: warning: {message}", file=sys.stderr, flush=True)
    files.WARNINGS.append(str(message))


def _write_notes(command: Sequence[str], started: datetime, seconds: float) -> None:
    written = [path for path in files.WRITTEN if path.exists()]
    if not written:
        return
    stdin = files.STDIN[-1] if files.STDIN else None
    inputs = {str(path): sha256(path) for path in files.READ if path.is_file() and path not in files.WRITTEN}
    described = {
        "command": ["tseg", *command[1:]],
        "stdin": stdin,
        "settings": hashlib.sha256("\0".join([*command[1:], stdin or ""]).encode()).hexdigest(),
        "inputs": inputs,
        "folder": str(Path.cwd()),
        "revision": git_revision(),
        "versions": versions(),
        "machine": _machine(),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "warnings": files.WARNINGS,
    }
    for path in written:
        write_json(note_path(path), described | {"sha256": sha256(path)})


@cache
def sha256(path: Path) -> str:
    """The SHA-256 of a file, computed once in every process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """The versions of Python, tseg and the libraries that it requires."""
    requirements = [each for each in importlib.metadata.requires("tseg") or [] if "development" not in each]
    required = [re.split(r"[^\w.-]", each, maxsplit=1)[0] for each in requirements]
    found = {"python": platform.python_version()}
    for name in sorted({"tseg", *required}):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # of an extra
            continue
    return found


@cache
def git_revision() -> str:
    """The commit of the working directory, with -dirty appended if files differ; `unknown` outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _machine() -> dict[str, str]:
    described = {"host": platform.node(), "system": platform.platform(), "cores": str(os.cpu_count())}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"model name\s*: (.*)", cpuinfo.read_text())):
        described["processor"] = found[1]
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        described["gpu"] = torch.cuda.get_device_name()
    return described
