import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tseg.fetching import unpack as module
from tseg.fetching.unpack import unpack

FILES = {"a.txt": b"one", "sub/b.txt": b"two" * 1000, "sub/deeper/c.bin": bytes(range(256)) * 500, "sub/empty": b""}
LIMIT = 10**6


def zip_of(files: dict[str, bytes], **attributes: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = attributes.get("mode", 0) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = "", mode: int = 0o644):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = len(content), kind, to, mode
    return info, content


def symlink(name: str, to: str):
    return member(name, kind=tarfile.SYMTYPE, to=to)


def hardlink(name: str, to: str):
    return member(name, kind=tarfile.LNKTYPE, to=to)


def tar_of(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tar_of_files(files: dict[str, bytes]) -> bytes:
    return tar_of(*(member(name, content) for name, content in files.items()))


def patched(content: bytes, at: int, patch: bytes) -> bytes:
    return content[:at] + patch + content[at + len(patch) :]


def with_declared_size(content: bytes, size: int) -> bytes:
    """A zip of one member whose directory declares a wrong size."""
    return patched(content, content.index(b"PK\x01\x02") + 24, struct.pack("<I", size))


def encrypted(content: bytes) -> bytes:
    return patched(patched(content, 6, b"\x01\x00"), content.index(b"PK\x01\x02") + 8, b"\x01\x00")


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[..., Path]:
    """A function that unpacks bytes into a folder, and returns it."""

    def run(content: bytes, limit: int = LIMIT) -> Path:
        archive, dir = tmp_path / "some archive", tmp_path / "home" / "dir"
        archive.write_bytes(content)
        dir.mkdir(parents=True)
        assert unpack(archive, dir, limit) == sum(not path.is_dir() or path.is_symlink() for path in dir.rglob("*"))
        return dir

    return run


def contents(dir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(dir)): path.read_bytes() for path in dir.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "content",
    [
        zip_of(FILES),
        tar_of_files(FILES),
        gzip.compress(tar_of_files(FILES)),
        bz2.compress(tar_of_files(FILES)),
        lzma.compress(tar_of_files(FILES)),
    ],
    ids=["zip", "tar", "gzip", "bzip2", "xz"],
)
def test_every_file_has_its_name_and_content(unpacked: Callable[..., Path], content: bytes) -> None:
    assert contents(unpacked(content)) == FILES


def test_empty_folders_are_made_and_a_leading_dot_is_ignored(unpacked: Callable[..., Path]) -> None:
    folder = member("./sub/empty", kind=tarfile.DIRTYPE)
    dir = unpacked(tar_of(member(".", kind=tarfile.DIRTYPE), folder, member("./sub/a", b"x")))
    assert contents(dir) == {"sub/a": b"x"}
    assert (dir / "sub/empty").is_dir()


@pytest.mark.parametrize("mode", [0, 0o777, 0o4755])
def test_permissions_follow_the_umask_not_the_archive(unpacked: Callable[..., Path], mode: int) -> None:
    umask = os.umask(0o027)
    try:
        dir = unpacked(tar_of(member("a/b", b"x", mode=mode)))
    finally:
        os.umask(umask)
    assert stat.S_IMODE((dir / "a/b").stat().st_mode) == 0o640
    assert stat.S_IMODE((dir / "a").stat().st_mode) == 0o750


def test_links_that_stay_inside_are_made_and_survive_a_move(unpacked: Callable[..., Path], tmp_path: Path) -> None:
    dir = unpacked(
        tar_of(
            symlink("first", "sub/b.txt"),  # before its target, as in some archives
            symlink("sub/up", "../a.txt"),
            symlink("folder", "sub"),
            symlink("outside and back", "../dir/a.txt"),
            member("a.txt", b"one"),
            member("sub/b.txt", b"two"),
            hardlink("sub/same", "a.txt"),
        )
    )
    moved = dir.rename(tmp_path / "moved")
    assert (moved / "first").read_bytes() == b"two"
    assert (moved / "sub/up").read_bytes() == b"one"
    assert (moved / "folder/b.txt").read_bytes() == b"two"
    assert (moved / "outside and back").resolve() == moved / "a.txt"
    assert (moved / "sub/same").samefile(moved / "a.txt")


OUTSIDE = "would land outside the folder"
NO_TARGET = "which is not in the archive"
BOMB = "unpacks to more than 1,000,000 bytes"
FILE = member("a.txt", b"one")
TWO = tar_of(FILE, member("b.txt", b"two"))
PAX_BOMB = tarfile.TarInfo("pax")
PAX_BOMB.type, PAX_BOMB.size = tarfile.XHDTYPE, 2**25
NEGATIVE = tarfile.TarInfo("negative")
NEGATIVE.size = -(2**20)


HOSTILE = {
    "zip, parent": (zip_of(FILES | {"../outside": b"x"}), OUTSIDE),
    "zip, parent below": (zip_of({"a/../../outside": b"x"}), OUTSIDE),
    "zip, absolute": (zip_of({"/outside": b"x"}), OUTSIDE),
    "zip, backslash": (zip_of({"..\\outside": b"x"}), OUTSIDE),
    "zip, drive": (zip_of({"C:outside": b"x"}), OUTSIDE),
    "zip, symbolic link": (zip_of({"link": b"/etc"}, mode=stat.S_IFLNK | 0o777), "'link' is a link or a device"),
    "zip, device": (zip_of({"null": b""}, mode=stat.S_IFCHR), "'null' is a link or a device"),
    "zip, folder with content": (zip_of({"a/": b"x"}), "'a/' is a folder with content"),
    "zip, encrypted": (encrypted(zip_of({"a": b"x"})), "'a' is encrypted"),
    "zip, one big member": (zip_of({"bomb": bytes(10**6 + 1)}), BOMB),
    "zip, many empty members": (zip_of({str(n): b"" for n in range(2000)}), BOMB),
    "zip, more than it says": (with_declared_size(zip_of({"a": bytes(10**5)}), 10), "BadZipFile: Bad CRC-32"),
    "zip, less than it says": (with_declared_size(zip_of({"a": b"x"}), 10**5), "'a' does not have the 100,000 bytes"),
    "zip, cut short": (zip_of(FILES)[:-30], "not a zip file"),
    "zip, wrong sum": (patched(zip_of(FILES), zip_of(FILES).index(b"PK\x01\x02") + 16, b"\x00" * 4), "Bad CRC-32"),
    "tar, parent": (tar_of(FILE, member("../outside", b"x")), OUTSIDE),
    "tar, parent below": (tar_of(member("a/../../outside", b"x")), OUTSIDE),
    "tar, absolute": (tar_of(member("/outside", b"x")), OUTSIDE),
    "tar, folder above": (tar_of(member("../outside", kind=tarfile.DIRTYPE)), OUTSIDE),
    "tar, link called outside": (tar_of(FILE, symlink("../outside", "a.txt")), OUTSIDE),
    "tar, link out": (tar_of(symlink("link", "../..")), NO_TARGET),
    "tar, absolute link": (tar_of(symlink("link", "/etc/passwd")), NO_TARGET),
    "tar, link to nothing": (tar_of(symlink("link", "nothing")), NO_TARGET),
    "tar, chain that ends outside": (
        tar_of(member("s/t/file"), symlink("s/t/d", "../.."), symlink("e", "s/t/d/../../archive")),
        NO_TARGET,
    ),
    "tar, links in a circle": (tar_of(symlink("a", "b"), symlink("b", "a")), NO_TARGET),
    "tar, file through a link": (tar_of(symlink("link", ".."), member("link/outside", b"x")), NO_TARGET),
    "tar, file through an inner link": (tar_of(FILE, symlink("l", "."), member("l/outside", b"x")), "FileExistsError"),
    "tar, file that would replace a link": (tar_of(FILE, symlink("l", "a.txt"), member("l", b"x")), "FileExistsError"),
    "tar, hard link out": (tar_of(hardlink("link", "../../archive")), NO_TARGET),
    "tar, absolute hard link": (tar_of(hardlink("link", "/etc/passwd")), NO_TARGET),
    "tar, hard link over a link": (tar_of(symlink("l", "../.."), hardlink("link", "l/some archive")), NO_TARGET),
    "tar, character device": (tar_of(member("null", kind=tarfile.CHRTYPE)), "'null' is neither a file"),
    "tar, block device": (tar_of(member("disk", kind=tarfile.BLKTYPE)), "'disk' is neither a file"),
    "tar, pipe": (tar_of(member("pipe", kind=tarfile.FIFOTYPE)), "'pipe' is neither a file"),
    "tar, file with holes": (tar_of(member("holes", kind=tarfile.GNUTYPE_SPARSE)), "'holes' is neither a file"),
    "tar, unknown kind": (tar_of(member("what", kind=b"Z")), "'what' is neither a file"),
    "tar, twice": (tar_of(FILE, FILE), "two members named 'a.txt'"),
    "tar, one big member": (gzip.compress(tar_of(member("bomb", bytes(10**6 + 1)))), BOMB),
    "tar, many empty members": (gzip.compress(tar_of(*(member(str(n)) for n in range(2000)))), BOMB),
    "tar, header bomb": (gzip.compress(PAX_BOMB.tobuf() + bytes(2**25)), "bytes of headers in a row"),
    "tar, negative size": (NEGATIVE.tobuf(tarfile.GNU_FORMAT) + bytes(1024), "'negative' is damaged|invalid offset"),
    "tar, cut short": (TWO[:700], "ReadError: unexpected end of data"),
    "tar, cut between members": (TWO[:1024], "it is damaged or truncated"),
    "tar, damaged header": (patched(TWO, 1024 + 10, b"x"), "it is damaged or truncated"),
    "gzip, cut short": (gzip.compress(TWO)[:-20], "EOFError"),
    "gzip, wrong sum": (gzip.compress(TWO)[:-8] + bytes(8), "BadGzipFile: CRC check failed"),
    "xz, damaged": (patched(lzma.compress(TWO), 40, bytes(20)), "LZMAError"),
    "neither": (b"neither" * 1000, "it is neither a zip nor a tar"),
    "empty": (b"", "it is neither a zip nor a tar"),
}


@pytest.mark.parametrize(("content", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_or_damaged_archive_is_refused_by_name_and_writes_nothing_outside(
    unpacked: Callable[..., Path], tmp_path: Path, content: bytes, reason: str
) -> None:
    with pytest.raises(ValueError, match=rf"some archive cannot be unpacked.*({reason})") as refusal:
        unpacked(content)
    assert "\n" not in str(refusal.value)
    dir = tmp_path / "home" / "dir"
    assert {path for path in tmp_path.rglob("*") if dir not in (path, *path.parents)} == {
        tmp_path / "some archive",
        tmp_path / "home",
    }
    assert all(path.resolve().is_relative_to(dir) for path in dir.rglob("*"))
    assert reason not in (OUTSIDE, BOMB) or not any(dir.iterdir()), "the headers reveal it, yet something was written"
    assert not any(stat.S_ISFIFO(path.lstat().st_mode) or path.is_char_device() for path in dir.rglob("*"))


def test_an_archive_of_exactly_the_limit_is_unpacked(unpacked: Callable[..., Path], tmp_path: Path) -> None:
    content = tar_of(member("a", bytes(5000)), member("b", b"x"), member("c"))
    assert set(contents(unpacked(content, 5000 + 512 + 512))) == {"a", "b", "c"}
    shutil.rmtree(tmp_path / "home")
    with pytest.raises(ValueError, match="more than 6,023 bytes; if that is right, raise its max_unpacked"):
        unpacked(content, 5000 + 512 + 511)


def test_a_full_disk_is_reported_before_unpacking(
    unpacked: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda dir: SimpleNamespace(free=999))
    with pytest.raises(ValueError, match=r"needs 1,000 bytes, but only 999 are free in .*dir; make room"):
        unpacked(tar_of(member("a", bytes(1000))))
    assert not list((tmp_path / "home" / "dir").iterdir())


def test_headers_do_not_accumulate_in_memory(unpacked: Callable[..., Path]) -> None:
    members = [member(str(n)) for n in range(16)]
    for info, _ in members:
        info.pax_headers = {"comment": "x" * 2**21}
    content = gzip.compress(tar_of(*members, format=tarfile.PAX_FORMAT))
    tracemalloc.start()
    unpacked(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**21


segments = st.sampled_from(["a", "b", "c", "é", ".", "..", "", "a\\b", "C:", "x" * 300])
names = st.lists(segments, min_size=1, max_size=3).map("/".join).filter(lambda name: "\0" not in name)
file_names = names.filter(lambda name: not name.endswith("/"))  # a trailing slash marks a folder in a zip
file_members = st.tuples(file_names, st.just(tarfile.REGTYPE), st.binary(max_size=40))
others = st.tuples(names, st.sampled_from([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE]), names)
trees = st.lists(file_members | file_members | others, max_size=6)


def harmless(members: list[tuple[str, bytes, bytes | str]]) -> bool:
    """Whether all members are files and folders with plain, compatible names."""
    kinds = {PurePosixPath(name): kind for name, kind, _ in members}
    parents = {parent for path in kinds for parent in path.parents}
    return len(kinds) == len(members) and all(
        kind in (tarfile.REGTYPE, tarfile.DIRTYPE)
        and not {"..", "x" * 300} & set(path.parts)
        and not any("\\" in part for part in path.parts)
        and not str(path).startswith(("/", "C:"))
        and path.parts
        and (kind == tarfile.DIRTYPE or path not in parents)
        for path, kind in kinds.items()
    )


def pack(members: list[tuple[str, bytes, bytes | str]], as_zip: bool) -> bytes:
    if not as_zip:
        return tar_of(
            *(
                member(name, given) if isinstance(given, bytes) else member(name, kind=kind, to=given)
                for name, kind, given in members
            ),
            format=tarfile.PAX_FORMAT,
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, kind, given in members:
            info = zipfile.ZipInfo(name + "/" * (kind == tarfile.DIRTYPE))
            info.external_attr = stat.S_IFLNK << 16 if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else 0
            archive.writestr(info, given if isinstance(given, bytes) else b"")
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=200, deadline=None, derandomize=True)
@given(members=trees, as_zip=st.booleans())
def test_any_archive_is_refused_or_every_file_is_unpacked_inside_with_its_content(members, as_zip) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        archive, dir = root / "archive", root / "home" / "dir"
        archive.write_bytes(pack(members, as_zip))
        dir.mkdir(parents=True)
        try:
            unpack(archive, dir, LIMIT)
            refused = False
        except ValueError:
            refused = True
        assert set(root.iterdir()) == {archive, root / "home"}
        assert list((root / "home").iterdir()) == [dir]
        assert all(path.resolve(strict=True).is_relative_to(dir) for path in dir.rglob("*"))
        if not refused:
            assert {path for path in dir.rglob("*") if path.is_symlink()} == {
                dir / name for name, kind, _ in members if kind == tarfile.SYMTYPE
            }
            for name, kind, content in members:
                if kind == tarfile.REGTYPE:
                    assert (dir / name).read_bytes() == content
        assert not (refused and harmless(members))
