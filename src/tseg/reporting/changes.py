"""What git says has changed since the manifests of the audit were committed: settings by key, other files by name."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml

from tseg.settings.validation import load_yaml

DECISIVE = ("Snakefile", "workflow", "config", "src", "profiles", "dvc.yaml", "requirements.lock", "pyproject.toml")
"""What decides the results, besides libraries and machine."""

_ABSENT = object()


def git(*words: str, folder: Path = Path()) -> str:
    """What a git command prints. Raises ValueError if it fails."""
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, check=False)
    if done.returncode:
        raise ValueError(f"git {words[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace")


class Changes(NamedTuple):
    """One line for each change."""

    settings: list[str]
    files: list[str]


def changes_since(*paths: str) -> Changes:
    """What differs from the last commit that changed one of `paths`: keys of settings, and other files."""
    found = Changes([], [])
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        found.files.append(
            "earlier commits are not in this shallow clone; git fetch --unshallow names what they changed"
        )
    elif commit := git("log", "-1", "--format=%H", "--", *paths).strip():
        _add_changes(found, commit, "HEAD")
    else:
        raise ValueError(f"git has no {' and no '.join(paths)}")
    _add_changes(found, "HEAD", None)
    new = git("ls-files", "-z", "--others", "--exclude-standard", "--", *DECISIVE).split("\0")
    found.files.extend(f"{name} is new (not committed)" for name in new if name)
    return found


def changed_keys(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """One line for each key of nested settings whose value differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        old, new = cast(dict[str, Any], before), cast(dict[str, Any], now)
        for each in dict.fromkeys([*old, *new]):
            yield from changed_keys(old.get(each, _ABSENT), new.get(each, _ABSENT), f"{key}.{each}".removeprefix("."))
    elif before != now:
        yield f"{key} is {_flow(now)}, was {_flow(before)}"


def _add_changes(found: Changes, before: str, after: str | None) -> None:
    """Add the changes between two commits, or between a commit and the files that are there (None)."""
    commits, mark = ([before, after], "") if after else ([before], " (not committed)")
    fields = git("diff", "--no-renames", "--name-status", "-z", *commits, "--", *DECISIVE).split("\0")
    for status, name in zip(fields[::2], fields[1::2], strict=False):
        what = {"A": "is new", "D": "was removed"}.get(status, "has changed")
        if status == "M" and name.endswith(".yaml"):
            texts = git("show", f"{before}:{name}"), git("show", f"{after}:{name}") if after else _text(name)
            try:
                old, new = (load_yaml(text, name) for text in texts)
            except ValueError:
                what = "has changed, and is no YAML"
            else:
                found.settings.extend(f"{name}: {line}{mark}" for line in changed_keys(old, new))
                if old != new or repr(old) == repr(new):  # repr tells the order of keys
                    continue
                what = "has its keys in another order"
        found.files.append(f"{name} {what}{mark}")


def _text(name: str) -> str:
    return Path(name).read_text(encoding="utf-8", errors="replace")


def _flow(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True)
    return text.removesuffix("\n...\n").strip()
