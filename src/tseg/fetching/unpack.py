"""Unpack an untrusted archive: only files, folders and inner links, nothing outside the folder, no bomb."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from tseg.fetching.archives import Member, members
from tseg.progress import progress

MIN_COST = 512  # bytes that a member counts at least: a million empty files fill a disk too
PIECE = 2**20


def unpack(archive: Path, dir: Path, max_bytes: int) -> int:
    """Unpack a zip or a (compressed) tar into the existing folder `dir`; return the number of files.

    Raises ValueError that names `archive` if a member would leave `dir`, is a device, is encrypted or is a duplicate;
    if a link is in a zip or leads outside the archive; if the contents exceed `max_bytes` or the free disk space; or
    if the archive is damaged or truncated. `dir` may then be partly filled.
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
        # Links come last, so that nothing is written through a link.
        for member in links:
            _make_link(member, dir)
    except ValueError as error:
        raise ValueError(f"{archive} cannot be unpacked: {error}") from error
    except Exception as error:  # damaged archives raise errors of many types
        raise ValueError(
            f"{archive} cannot be unpacked ({type(error).__name__}: {error}); "
            "if it is damaged, delete it and fetch it again"
        ) from error
    return num_files


def _check(archive: Path, dir: Path, max_bytes: int) -> int:
    """The total size of all files according to their headers. Raises ValueError if the headers are unacceptable."""
    total = cost = 0
    for member in members(archive):
        _parts(member.name)
        total += member.size
        cost += max(member.size, MIN_COST)
        if cost > max_bytes:
            raise ValueError(f"it unpacks to more than {max_bytes:,} bytes; if that is right, raise its max_unpacked")
    free = shutil.disk_usage(dir).free
    if cost > free:
        raise ValueError(f"it needs {cost:,} bytes, but only {free:,} are free in {dir}; make room")
    return total


def _parts(name: str) -> tuple[str, ...]:
    """The path components of a member's name. Raises ValueError if the path leaves the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or re.search(r"\\|\0|^[A-Za-z]:", name):
        raise ValueError(f"its member {name!r} would land outside the folder")
    return path.parts


def _write(member: Member, path: Path, advance: Callable[[int], object]) -> None:
    """Write a file. Raises ValueError if its size differs from its header."""
    try:
        target = path.open("xb")  # its mode comes from the umask, not from the archive
    except FileExistsError:
        raise ValueError(f"it has two members named {member.name!r}") from None
    size = 0
    with target, member.content() as source:
        while size <= member.size and (piece := source.read(PIECE)):
            size += target.write(piece)
            advance(len(piece))
    if size != member.size:
        raise ValueError(f"its member {member.name!r} does not have the {member.size:,} bytes of its header")


def _make_link(member: Member, dir: Path) -> None:
    """Make a link to an unpacked member. Raises ValueError if the target does not exist inside `dir`."""
    path = dir.joinpath(*_parts(member.name))
    base = dir if member.kind == "hard link" else path.parent
    target = (base / member.link_target).resolve()
    if not (target.is_relative_to(dir.resolve()) and target.exists()):
        raise ValueError(f"its member {member.name!r} is a link to {member.link_target!r}, which is not in the archive")
    if member.kind == "hard link":
        os.link(target, path)
    else:
        # A new relative path, as the archive's own may lead through folders outside.
        path.symlink_to(os.path.relpath(target, path.parent.resolve()))
