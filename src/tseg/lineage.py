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
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tseg import files
from tseg.files import hash_file, write_json

FOLDER = ".made"
WORKFLOW = "TSEG_WORKFLOW"
"""Environment variable in which the workflow says how it was started."""


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
    """Path of each file that the command read, as it named it, to its SHA-256, without images, masks, tokens."""
    folder: str
    """The working directory."""
    workflow: str | None = None
    """The snakemake command whose job this was, without its targets."""
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
    """Each warning of the commands that made files, and those of its files that are still there.

    `folders` hold the notes themselves (`.made`), or files with their notes at any depth.
    """
    found: dict[str, list[Path]] = {}
    notes = [folder.glob("*.json") if folder.name == FOLDER else folder.rglob(f"{FOLDER}/*.json") for folder in folders]
    for noted_path in sorted(chain(*notes)):
        path = noted_path.parent.parent / noted_path.stem
        if path.exists():
            with suppress(ValueError, OSError):  # of an earlier version
                note = read_note(path)
                for text in note.warnings if note else ():
                    found.setdefault(text, []).append(path)
    return found


@contextmanager
def noted(command: Sequence[str]) -> Generator[None]:
    """Write a note for each file that the body writes and that is there at its end, unless the body fails.

    Warnings of this package are printed in one line and become a part of the notes.
    """
    clock = time.monotonic()
    made = {
        "folder": str(Path.cwd()),
        "workflow": os.environ.get(WORKFLOW),
        "revision": git_revision(),
        "versions": versions(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    warnings.showwarning = _remember_warning
    try:
        yield
    except SystemExit as ended:
        if ended.code not in (0, None):
            raise
    try:
        _write_notes(command, made, round(time.monotonic() - clock, 1))
    except (OSError, ValueError) as error:  # the files themselves are complete
        print(f"tseg: warning: no note of what made them could be written: {error}", file=sys.stderr)


def _remember_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    if not (category is UserWarning and Path(filename).is_relative_to(Path(__file__).parent)):
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))
        return
    print(f"tseg: warning: {message}", file=sys.stderr, flush=True)
    files.WARNINGS.append(str(message))


def _write_notes(command: Sequence[str], made: dict[str, Any], seconds: float) -> None:
    written = [path for path in files.WRITTEN if path.exists()]
    if not written:
        return
    stdin = files.STDIN[-1] if files.STDIN else None
    inputs = {
        str(path): hash_file(path) if path.stat().st_mtime_ns == changed else "changed while it was read"
        for path, changed in files.READ.items()
        if path not in files.WRITTEN
    }
    described = made | {
        "command": ["tseg", *command[1:]],
        "stdin": stdin,
        "settings": hashlib.sha256("\0".join([*command[1:], stdin or ""]).encode()).hexdigest(),
        "inputs": inputs,
        "machine": machine(),
        "seconds": seconds,
        "warnings": files.WARNINGS,
    }
    for path in written:
        write_json(note_path(path), described | {"sha256": hash_file(path)})


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


def machine_name(described: Mapping[str, str]) -> str:
    """The processor of a note's `machine`, and the GPU if one was used."""
    return " with ".join(described[name] for name in ("processor", "gpu") if name in described) or "unknown"


def machine() -> dict[str, str]:
    """The machine, as a note describes it."""
    described = {"host": platform.node(), "system": platform.platform(), "cores": str(os.cpu_count())}
    cpuinfo = Path("/proc/cpuinfo")
    pattern = r"cpu family\s*: (\d+)\nmodel\s*: (\d+)\nmodel name\s*: (.*)"
    if cpuinfo.exists() and (found := re.search(pattern, cpuinfo.read_text())):
        described["processor"] = f"{found[3]} (family {found[1]}, model {found[2]})"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        described["gpu"] = torch.cuda.get_device_name()
    return described
