"""Follow the pages of docs/ in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOBODY = {f"GIT_{role}_{what}": "nobody@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks_of(page: str) -> list[tuple[str, str]]:
    """The kind and text of every code block of a page, in order."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def copy_project(folder: Path) -> None:
    """Copy the parts of the project that the workflow needs."""
    for name in ("Snakefile", "workflow", "config", "src"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)


def run(project: Path, *command: str, code: int = 0) -> str:
    """Run a command in a copy of the project; return its output. It must end with `code`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | NOBODY | {"PATH": path, "PYTHONPATH": str(project / "src")}
    done = subprocess.run(command, cwd=project, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr
