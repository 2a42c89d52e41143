import errno
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tseg import files
from tseg.files import atomic_write, hash_file, require_file


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "table.csv"
    with atomic_write(path) as partial:
        partial.write_text("half")
        assert not path.exists()
        assert partial.parent == path.parent
        assert partial.suffix == path.suffix
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def test_a_finished_file_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("before")
    with atomic_write(path) as partial:
        partial.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_keeps_the_previous_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "table.csv"
    path.write_text("before")
    with pytest.raises(error), atomic_write(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_named_with_its_hint(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with pytest.raises(ValueError, match=r"table\.csv does not exist; make it first"):
        require_file(path, "make it first")
    path.touch()
    assert require_file(path, "make it first") == path


WRITER = """
import sys
from pathlib import Path
from tseg.files import atomic_write
for _ in range(100):
    with atomic_write(Path(sys.argv[1])) as partial:
        partial.write_text(sys.argv[2] * 10_000)
"""


def test_several_processes_write_one_path_and_it_is_always_whole(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter]) for letter in "abc"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            seen.add(path.read_text())
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert seen <= {letter * 10_000 for letter in "abc"}
    assert len(seen) > 1
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_of_a_killed_process_is_removed_and_that_of_a_running_one_kept(tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", "pass"])
    killed.wait()
    ours = f"{socket.gethostname().replace('.', '-')}-{{}}-0.partial.csv"
    stale, alive, elsewhere = (
        tmp_path / f".table.csv.{name}"
        for name in (ours.format(killed.pid), ours.format(os.getppid()), f"another-host-{killed.pid}-0.partial.csv")
    )
    for file in (stale, alive, elsewhere):
        file.touch()
    with atomic_write(tmp_path / "table.csv") as partial:
        partial.touch()
    assert {file.name for file in tmp_path.iterdir()} == {"table.csv", alive.name, elsewhere.name}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("file write failed")])
def test_a_full_disk_is_named_whatever_the_library_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = tmp_path / "table.csv"
    path.write_text("before")
    if not isinstance(error, OSError):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with (
        pytest.raises(ValueError, match=r"table\.csv cannot be written: the disk is full; free space"),
        atomic_write(path),
    ):
        raise error
    assert path.read_text() == "before"


def test_another_failure_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="something else"), atomic_write(tmp_path / "table.csv"):
        raise RuntimeError("something else")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match=r"file/table\.csv cannot be written: (Not a directory|File exists)"),
        atomic_write(tmp_path / "file" / "table.csv"),
    ):
        pass


def test_of_what_is_read_only_files_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "READ", {})
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder", tmp_path / "file"):
        assert files.require_file(path, "") == path
    assert list(files.READ) == [tmp_path / "file"]


def test_hashes_equal_those_of_the_standards(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert hash_file(tmp_path / "abc", "md5") == "900150983cd24fb0d6963f7d28e17f72"
    assert hash_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
