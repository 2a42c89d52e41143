"""Raw files: fetched by address and checksum, or placed by hand and looked for."""

import shutil
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import pooch


def fetch_archive(url: str, checksum: str | None, dir: Path) -> int:
    """Download the zip or tar at `url`, verify it, unpack it as `dir`; returns its number of files.

    `checksum` is `md5:...` or `sha256:...`, None where none is published: then nothing is verified. The archive stays
    beside `dir`, and one that was placed there serves as well; a `dir` that is there already is replaced. Raises
    ValueError when the archive cannot be had, is not the one of the checksum, or does not unpack into `dir` alone.
    """
    # The folder's name keeps apart the archives of two sources that are called alike.
    archive = dir.with_name(f"{dir.name}-{PurePosixPath(unquote(urlsplit(url).path)).name}")
    try:
        pooch.retrieve(url, checksum, fname=archive.name, path=archive.parent, downloader=download)  # pyright: ignore
        unpack(archive, dir)
    except Exception as error:  # the network and broken archives fail in more ways than can be listed
        reason = str(error).partition(". ")[0]  # pooch goes on for several sentences
        raise ValueError(
            f"{url} could not be fetched into {dir} ({reason}); "
            f"place the archive by hand at {archive} (checksum {checksum or 'unpublished'}) and try again"
        ) from error
    return num_files(dir)


def check_placed(files: list[str], page: str, dir: Path) -> int:
    """The number of `files`, which a person fetches from `page` into `dir`. Raises ValueError if one lacks."""
    missing = [name for name in files if not (dir / name).exists()]
    if missing:
        raise ValueError(f"{dir} lacks {', '.join(missing)}; fetch them by hand from {page} and place them in {dir}")
    return len(files)


def download(url: str, output_file: str, pooch_: pooch.Pooch | None) -> None:
    """Download over HTTP for pooch; raises ValueError when a web page comes, as it does from dead hosts."""
    pooch.HTTPDownloader(progressbar=sys.stderr.isatty())(url, output_file, pooch_)
    with Path(output_file).open("rb") as file:
        if file.read(64).lstrip().lower().startswith((b"<!doctype", b"<html")):
            raise ValueError("a web page came in place of the archive")


def unpack(archive: Path, dir: Path) -> None:
    """Unpack beside `dir` and rename: `dir` is whole or absent. Raises for a member that would leave it."""
    partial = dir.with_name(f"{dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                for member in tar:
                    refuse_outside(member.name)
                    if not (member.isfile() or member.isdir()):
                        raise ValueError(f"its member {member.name} is a link or a device")
                # Python before 3.11.4, Debian's among them, has no filters: what they refuse is refused above.
                tar.extraction_filter = getattr(tarfile, "data_filter", None)
                tar.extractall(partial)
        else:
            with zipfile.ZipFile(archive) as zip_file:
                for name in zip_file.namelist():
                    refuse_outside(name)
                zip_file.extractall(partial)
        shutil.rmtree(dir, ignore_errors=True)
        partial.replace(dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_outside(name: str) -> None:
    """Raise ValueError when a member's name leads out of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"its member {name} would land outside the folder")


def num_files(dir: Path) -> int:
    """The number of files in `dir` and below."""
    return sum(path.is_file() for path in dir.rglob("*"))
