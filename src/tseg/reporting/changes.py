"""What git says has changed since the manifests of the audit were committed: settings by key, other files by name."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

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


def changes_since(*paths: str) -> list[str]:
    """One line for each setting or file that differs from the last commit that changed one of `paths`."""
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        committed = ["earlier commits are not in this shallow clone; git fetch --unshallow names what they changed"]
    else:
        committed = _changes(git("log", "-1", "--format=%H", "--", *paths).strip(), "HEAD")
    new = git("ls-files", "-z", "--others", "--exclude-standard", "--", *DECISIVE).split("\0")
    return [
        *committed,
        *(f"{line} (not committed)" for line in _changes("HEAD", None)),
        *(f"{name} is new (not committed)" for name in new if name),
    ]


def _changes(before: str, after: str | None) -> Iterator[str]:
    """The changes between two commits, or between a commit and the files that are there (None)."""
    commits = [before, after] if after else [before]
    fields = git("diff", "--no-renames", "--name-status", "-z", *commits, "--", *DECISIVE).split("\0")
    for status, name in zip(fields[::2], fields[1::2], strict=False):
        if status == "M" and name.endswith(".yaml"):
            texts = git("show", f"{before}:{name}"), git("show", f"{after}:{name}") if after else _text(name)
            try:
                values = [load_yaml(text, name) for text in texts]
            except ValueError:
                yield f"{name} has changed, and is no YAML"
            else:
                yield from (f"{name}: {line}" for line in _differences(values[0], values[1], ""))
                if values[0] == values[1] and repr(values[0]) != repr(values[1]):
                    yield f"{name} has its keys in another order"
        else:
            yield f"{name} {({'A': 'is new', 'D': 'was removed'}).get(status, 'has changed')}"


def _text(name: str) -> str:
    return Path(name).read_text(encoding="utf-8", errors="replace")


def _differences(before: Any, now: Any, key: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        old, new = cast(dict[str, Any], before), cast(dict[str, Any], now)
        for each in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(each, _ABSENT), new.get(each, _ABSENT), f"{key}.{each}".removeprefix("."))
    elif before != now:
        yield f"{key} is {_flow(now)}, was {_flow(before)}"


def _flow(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True)
    return text.removesuffix("\n...\n").strip()
