"""What git says has changed since the manifests of the audit were committed: settings by key, other files by name."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml

from tseg.settings.validation import load_yaml

DECISIVE = ("Snakefile", "workflow", "config", "src", "dvc.yaml", "requirements.lock")
"""What decides the results, besides libraries and machine."""


def git(*words: str, folder: Path = Path()) -> str:
    """What a git command prints. Raises ValueError if it fails."""
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"git {words[0]} failed: {done.stderr.strip()}; the audit needs a clone of the project")
    return done.stdout


def changes_since(path: Path) -> list[str]:
    """One line for each setting or file that differs from the last commit that changed `path`."""
    commit = git("log", "-1", "--format=%H", "--", str(path)).strip()
    names = git("diff", "--name-only", commit, "--", *DECISIVE).splitlines()
    uncommitted = git("diff", "--name-only", "HEAD", "--", *DECISIVE).splitlines()
    return [
        f"{line} (not committed)" if name in uncommitted else line for name in names for line in _changes(name, commit)
    ]


def _changes(name: str, commit: str) -> Iterator[str]:
    if not name.endswith(".yaml") or not Path(name).exists():
        yield f"{name} has changed"
    else:
        before, now = git("show", f"{commit}:{name}"), Path(name).read_text(encoding="utf-8")
        yield from (f"{name}: {line}" for line in _differences(load_yaml(before, name), load_yaml(now, name), ""))


def _differences(before: Any, now: Any, key: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        old, new = cast(dict[str, Any], before), cast(dict[str, Any], now)
        for each in dict.fromkeys([*old, *new]):
            if old.get(each) != new.get(each):
                yield from _differences(old.get(each), new.get(each), f"{key}.{each}".removeprefix("."))
    elif before != now:
        yield f"{key} is {_flow(now)}, was {_flow(before)}"


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True)
    return text.removesuffix("\n...\n").strip()
