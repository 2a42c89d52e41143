"""An archive unpacked into a folder: nothing outside it, nothing but files, folders and links within, no bomb."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from tseg.fetching.archives import Member, members
from tseg.progress import progress

LEAST_COST = 512  # bytes that a member counts for, an empty one too: a million of them fill a disk as well
PIECE = 2**20


def unpack(archive: Path, dir: Path, max_bytes: int) -> int:
    """Unpack a zip, or a tar of whatever compression, into the folder `dir`, which exists; returns how many files.

    Raises ValueError, naming `archive`, for a member that would leave `dir`, is a device, is encrypted or comes twice,
    for a link in a zip or to what is not in the archive, when all would take more than `max_bytes` or than is free on
    the disk, and when the archive is damaged or cut short. `dir` may then be partly filled.
    """
    try:
        total = _check(archive, dir, max_bytes)
        num_files, links = 0, []
        with progress((), f"unpack {archive.name}", "B", total, unit_scale=True) as bar:
            for member in members(archive):
                path = dir.joinpath(*_parts(member.name))
                (path if member.kind == "folder" else path.parent).mkdir(parents=True, exist_ok=True)
                if member.kind == "file":
                    _write(member, path, bar.update)
                elif member.kind != "folder":
                    links.append(member)
                num_files += member.kind != "folder"
        # Last of all, so that nothing is ever written through a link.
        for member in links:
            _make_link(member, dir)
    except ValueError as error:
        raise ValueError(f"{archive} cannot be unpacked: {error}") from error
    except Exception as error:  # broken archives fail in more ways than can be listed
        raise ValueError(
            f"{archive} cannot be unpacked ({type(error).__name__}: {error}); "
            "if it is damaged, delete it and fetch it again"
        ) from error
    return num_files


def _check(archive: Path, dir: Path, max_bytes: int) -> int:
    """The bytes of all files, as the headers say; raises ValueError for whatever they reveal."""
    total = cost = 0
    for member in members(archive):
        _parts(member.name)
        total += member.size
        cost += max(member.size, LEAST_COST)
        if cost > max_bytes:
            raise ValueError(f"it unfolds to more than {max_bytes:,} bytes; if it may, raise its max_unpacked")
    free = shutil.disk_usage(dir).free
    if cost > free:
        raise ValueError(f"it needs {cost:,} bytes, and {free:,} are free under {dir}; make room")
    return total


def _parts(name: str) -> tuple[str, ...]:
    """The folders and the file that a member's name names; raises ValueError where it leads out of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or re.search(r"\\|\0|^[A-Za-z]:", name):
        raise ValueError(f"its member {name!r} would land outside the folder")
    return path.parts


def _write(member: Member, path: Path, advance: Callable[[int], object]) -> None:
    """Write a member that is a file; raises ValueError where it has not the size that its header says."""
    try:
        target = path.open("xb")  # its mode is the umask's, whatever the archive says
    except FileExistsError:
        raise ValueError(f"it has two members called {member.name!r}") from None
    size = 0
    with target, member.content() as source:
        while size <= member.size and (piece := source.read(PIECE)):
            size += target.write(piece)
            advance(len(piece))
    if size != member.size:
        raise ValueError(f"its member {member.name!r} has not the {member.size:,} bytes that its header says")


def _make_link(member: Member, dir: Path) -> None:
    """Make a link to what is there already, inside `dir`; raises ValueError where there is no such thing."""
    path = dir.joinpath(*_parts(member.name))
    base = dir if member.kind == "hard link" else path.parent
    target = (base / member.link_target).resolve()
    if not (target.is_relative_to(dir.resolve()) and target.exists()):
        raise ValueError(f"its member {member.name!r} is a link to {member.link_target!r}, which is not in the archive")
    if member.kind == "hard link":
        os.link(target, path)
    else:
        # The archive's way there may lead over folders outside; this one does not.
        path.symlink_to(os.path.relpath(target, path.parent.resolve()))
