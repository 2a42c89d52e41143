"""Iterate over the members of an untrusted zip or tar."""

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from io import BufferedIOBase
from math import inf
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast

MAX_HEADER = 2**24  # bytes of headers that a tar may have before a member
OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}

Kind = Literal["file", "folder", "symbolic link", "hard link"]


class Member(NamedTuple):
    """One entry of an archive; its `name` and `link_target` are untrusted."""

    name: str
    kind: Kind
    size: int
    """Bytes according to the header; not negative."""
    content: Callable[[], IO[bytes]]
    """Open the content of a file; this may raise, or yield more or fewer bytes than `size`."""
    link_target: str = ""


def members(archive: Path) -> Iterator[Member]:
    """Yield the members of a zip or a (compressed) tar; read a member's content before asking for the next.

    Raises ValueError for a device, an encrypted member or a link in a zip, and for a tar without an end marker. Errors
    of zipfile, tarfile and the decompressors for a damaged archive pass through.
    """
    with archive.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"PK"):
        yield from _zip_members(archive)
        return
    opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), Path.open)
    with cast(IO[bytes], opener(archive, "rb")) as file:
        yield from _tar_members(_Bounded(file))


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as zip_file:
        for info in zip_file.infolist():
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"its member {info.filename!r} is a link or a device")
            if info.flag_bits & 1:
                raise ValueError(f"its member {info.filename!r} is encrypted")
            if info.is_dir() and info.file_size:
                raise ValueError(f"its member {info.filename!r} is a folder with content")
            kind = "folder" if info.is_dir() else "file"
            yield Member(info.filename, kind, info.file_size, partial(zip_file.open, info))


def _tar_members(file: "_Bounded") -> Iterator[Member]:
    try:
        tar = tarfile.TarFile(fileobj=file)
    except tarfile.ReadError as error:
        raise ValueError(f"it is neither a zip nor a tar ({error})") from error
    while True:
        file.budget = MAX_HEADER
        info = tar.next()
        if info is None:
            break
        tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  # else all stay in memory
        file.budget = inf
        yield Member(info.name, _tar_kind(info), info.size, partial(_tar_content, tar, info), info.linkname)
    # tarfile takes a damaged header for the end of the archive.
    file.seek(tar.offset)
    if any(end := file.read(tarfile.BLOCKSIZE)) or not end:
        raise ValueError("it is damaged or truncated; delete it and fetch it again")
    # A compressed stream verifies its checksum at its last byte.
    while file.read(2**16):
        pass


def _tar_kind(info: tarfile.TarInfo) -> Kind:
    if info.size < 0:
        raise ValueError(f"the size of its member {info.name!r} is damaged; delete it and fetch it again")
    if info.isreg() and not info.issparse():
        return "file"
    if info.isdir():
        return "folder"
    if info.issym():
        return "symbolic link"
    if info.islnk():
        return "hard link"
    raise ValueError(f"its member {info.name!r} is neither a file, a folder nor a link")


def _tar_content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    return cast(IO[bytes], tar.extractfile(info))


class _Bounded(BufferedIOBase):
    """A file that reads at most `budget` bytes, as a hostile header could fill the memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.budget: float = MAX_HEADER

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= self.budget:
            raise ValueError(f"it has more than {MAX_HEADER:,} bytes of headers in a row; it is damaged or hostile")
        self.budget -= size
        return self.file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()
