"""A lock that dies with its process."""

import subprocess
import sys
from pathlib import Path

import pytest

from tseg.locks import exclusive

HOLDER = """
import sys, time
from pathlib import Path
from tseg.locks import exclusive
with exclusive(Path(sys.argv[1]), "trains this run", wait=sys.argv[2] == "wait"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(path: Path, mode: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(path), mode]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_second_refuses_or_waits_until_the_first_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "run" / ".lock"
    with holder(path) as first:
        assert line(first) == "held"
        refused = rf"another process trains this run and holds {path}; wait until it finishes"
        with pytest.raises(ValueError, match=refused), exclusive(path, "trains this run"):
            pass
        with holder(path, "wait") as second:
            assert line(second) == f"another process trains this run and holds {path}; waiting until it ends"
            first.kill()
            assert line(second) == "held"
            second.communicate("end\n")
    assert not path.exists()
    with exclusive(path, "trains this run"):
        assert path.exists()


def test_a_path_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(ValueError, match=r"\.lock cannot be locked: Is a directory"),
        exclusive(tmp_path / ".lock", "trains this run"),
    ):
        pass
