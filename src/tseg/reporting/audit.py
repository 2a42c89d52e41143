"""The audit: whether results are those of the committed manifests, here and made again from nothing."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tseg.lineage import processor, read_note, versions
from tseg.reporting.changes import changes_since, git
from tseg.reporting.manifest import Content, Manifest, content_of, hashes_in, parse_manifest
from tseg.settings.stages import STAGES

FOLDER = Path("results/stages")
"""Of the manifests, in a clone of the project."""
NUM_NAMED = 20
"""Most files or changes that are named; the others are counted."""

FOLLOWS = "follows from"

VERDICTS = ("identical", "within tolerance", "different", "missing")


class Found(NamedTuple):
    """What an audit finds of a file."""

    stage: str
    path: str
    verdict: str
    """One of `VERDICTS`."""
    reason: str


def audit_results(scratch: Path | None, tolerance: float) -> bool:
    """Compare the results of this folder with the committed manifests, and print verdicts and reasons.

    With `scratch`, clone the last commit to it, make everything again there by DVC, and compare that too; a `scratch`
    that was interrupted goes on. Returns whether no file is different or missing. Raises ValueError outside a clone,
    or if the workflow fails in `scratch`.
    """
    manifests = _committed_manifests()
    console = Console(highlight=False, soft_wrap=True)
    _print_changes(console, manifests)
    folders = {"in this folder": Path()}
    if scratch is not None:
        _reproduce(scratch)
        folders["made again"] = scratch
    is_clean = True
    for where, folder in folders.items():
        found = _compare(manifests, folder, scratch, tolerance)
        _print_verdicts(console, where, found)
        is_clean &= all(each.verdict in ("identical", "within tolerance") for each in found)
    return is_clean


def _committed_manifests() -> dict[str, Manifest]:
    names = {stage: f"{FOLDER}/{stage}.json" for stage in STAGES}
    return {stage: parse_manifest(git("show", f"HEAD:./{name}"), name) for stage, name in names.items()}


def _reproduce(scratch: Path) -> None:
    commit = git("rev-parse", "HEAD").strip()
    if not scratch.exists():
        git("clone", "--quiet", ".", str(scratch))
    elif git("rev-parse", "HEAD", folder=scratch).strip() != commit:
        raise ValueError(f"{scratch} holds another commit than this folder; remove it, or choose another --scratch")
    scratch = scratch.resolve()
    environment = os.environ | {
        "PYTHONPATH": f"{scratch / 'src'}",  # before the installed code
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "dvc", "repro", "--force", "--no-commit", "--no-run-cache"]
    if subprocess.run(command, cwd=scratch, env=environment, check=False).returncode:
        raise ValueError(f"the workflow failed in {scratch}, see above; mend the cause, and the same command goes on")


def _compare(manifests: Mapping[str, Manifest], folder: Path, scratch: Path | None, tolerance: float) -> list[Found]:
    """The verdict on every file of the manifests in `folder`; in `scratch` also on those that are in none of them."""
    expected = {path: content for manifest in manifests.values() for path, content in manifest.files.items()}
    now = {path: content_of(folder / path) for path in expected if (folder / path).exists()}
    is_elsewhere = any(manifest.processors != processor() for manifest in manifests.values())
    found: list[Found] = []
    for stage, manifest in manifests.items():
        for path, content in manifest.files.items():
            verdict, reason = "identical", ""
            if path not in now:
                verdict = "missing"
            elif now[path].sha256 != content.sha256:
                is_judged = is_elsewhere and stage not in ("data", "records")
                is_within = is_judged and _is_within(path, expected, now, tolerance)
                verdict = "within tolerance" if is_within else "different"
                reason = _reason(folder, path, expected, now, scratch)
            found.append(Found(stage, path, verdict, reason))
        if folder == scratch:
            made = parse_manifest((folder / FOLDER / f"{stage}.json").read_text(encoding="utf-8"), str(folder))
            others = sorted(made.files.keys() - expected.keys())
            found += [Found(stage, path, "different", "is in no committed manifest") for path in others]
    return found


def _is_within(path: str, expected: Mapping[str, Content], now: Mapping[str, Content], tolerance: float) -> bool:
    """Whether the scores that judge a file are within `tolerance` points: of its run and seed, or else all scores."""
    scores = {name: content.score for name, content in expected.items() if content.score is not None}
    of_seed = {name for name in scores if Path(name).parts[-3:-1] == Path(path).parts[-3:-1]}
    judging = {path} if path in scores else of_seed or scores.keys()
    values = {name: now[name].score if name in now else None for name in judging}
    return all(
        value is not None and 100 * abs(value - (scores[name] or 0)) <= tolerance for name, value in values.items()
    )


def _reason(
    folder: Path, path: str, expected: Mapping[str, Content], now: Mapping[str, Content], scratch: Path | None
) -> str:
    """Why a file differs, as its note tells; of a folder, which of its files differ from those in `scratch`."""
    if path.endswith("/"):
        others, here = hashes_in(scratch / path) if scratch else {}, hashes_in(folder / path)
        names = sorted(name for name in others.keys() | here.keys() if others.get(name) != here.get(name))
        return f"{len(names)} files: {', '.join(names[:NUM_NAMED])}" if others and names else ""
    try:
        note = read_note(folder / path)
    except ValueError:
        note = None
    if note is None:
        return ""
    if now[path].sha256 != note.sha256:
        return "was changed after it was made"
    for name in note.inputs:
        if name in expected and (name not in now or now[name].sha256 != expected[name].sha256):
            return f"{FOLLOWS} {name}"
    return f"was made {note.started} by {' '.join(note.command[:2])}, git {note.revision[:12]}"


def _print_changes(console: Console, manifests: Mapping[str, Manifest]) -> None:
    """Print what differs between the conditions of the manifests and those of now."""
    here = versions() | {"the processor": processor()}
    lines = changes_since(FOLDER)
    for manifest in manifests.values():
        then = manifest.versions | {"the processor": manifest.processors}
        lines += [
            f"{name} is {here.get(name, 'not installed')}, was {then[name]}"
            for name in then
            if here.get(name) != then[name]
        ]
    lines = list(dict.fromkeys(lines))
    if lines:
        console.print("[bold]Changed since the committed manifests were made[/]")
    for line in lines[:NUM_NAMED]:
        console.print(f"  {escape(line)}")
    if len(lines) > NUM_NAMED:
        console.print(f"  and {len(lines) - NUM_NAMED} more")


def _print_verdicts(console: Console, where: str, found: list[Found]) -> None:
    table = Table("stage", title=f"Results {where}", title_justify="left", title_style="bold")
    for verdict in VERDICTS:
        table.add_column(verdict, justify="right")
    for stage in STAGES:
        counts = [sum(each.stage == stage and each.verdict == verdict for each in found) for verdict in VERDICTS]
        table.add_row(stage, *(str(count) if count else "" for count in counts))
    console.print(table)
    for verdict in ("different", "missing"):
        wrong = [each for each in found if each.verdict == verdict]
        roots = [each for each in wrong if not each.reason.startswith(FOLLOWS)]
        for each in roots[:NUM_NAMED]:
            console.print(f"  {escape(each.path)}: {verdict}" + (f", {escape(each.reason)}" if each.reason else ""))
        if len(wrong) > len(roots[:NUM_NAMED]):
            console.print(f"  and {len(wrong) - len(roots[:NUM_NAMED])} more {verdict}, which may follow from these")
