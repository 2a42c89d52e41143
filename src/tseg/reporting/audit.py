"""The audit: whether results are those of the committed manifests, here and made again from nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tseg.lineage import Note, machine, machine_name, read_note, versions
from tseg.reporting.changes import DECISIVE, changes_since, git
from tseg.reporting.listing import NUM_NAMED, print_lines
from tseg.reporting.manifest import Content, Manifest, content_of, hashes_in, parse_manifest
from tseg.settings.stages import STAGES

FOLDER = Path("results/stages")
"""Of the manifests, in a clone of the project."""
VERDICTS = ("identical", "within tolerance", "different", "missing")
EXACT = ("config.yaml", "images.csv", "datasets.csv", "datasets.md", "datasets.html")
"""Files that no processor rounds, besides raw data, records and overlaps."""


class Found(NamedTuple):
    """What an audit finds of a file."""

    stage: str
    path: str
    verdict: str
    """One of `VERDICTS`."""
    reason: str = ""
    cause: str = ""
    """The input from which the difference follows."""


def audit_results(scratch: Path | None, tolerance: float) -> bool:
    """Compare the results of this folder with the committed manifests, and print verdicts and reasons.

    With `scratch`, clone the last commit to it, make everything again there by DVC, and compare that too; a `scratch`
    that was interrupted goes on. Returns whether no file is different or missing. Raises ValueError outside a clone,
    without manifests, for another `scratch`, or if the workflow fails in it.
    """
    manifests = _committed_manifests()
    console = Console(highlight=False, soft_wrap=True)
    _print_changes(console, manifests)
    marker = _reproduce(scratch) if scratch else None
    found: list[Found] = []
    if any(Path(path).exists() for manifest in manifests.values() for path in manifest.files):
        found = _compare(manifests, Path(), scratch, tolerance)
        _print_verdicts(console, "Results in this folder", found)
    elif scratch is None:
        raise ValueError("this folder has no results; make them with snakemake --cores all, or pass --scratch .audit")
    if scratch and marker:
        again = _compare(manifests, scratch, Path(), tolerance)
        for stage, manifest in manifests.items():
            made = parse_manifest((scratch / FOLDER / f"{stage}.json").read_text(encoding="utf-8"), str(scratch))
            others = sorted(made.files.keys() - manifest.files.keys())
            again += [Found(stage, path, "different", "is in no committed manifest") for path in others]
        _print_verdicts(console, f"Results made again in {scratch}", again)
        marker.unlink()
        found += again
    return all(each.verdict in ("identical", "within tolerance") for each in found)


def _committed_manifests() -> dict[str, Manifest]:
    if git("rev-parse", "--show-prefix").strip():
        raise ValueError("this is a folder inside a project; run the audit at the project's root")
    manifests: dict[str, Manifest] = {}
    for stage in STAGES:
        name = f"{FOLDER}/{stage}.json"
        if not git("ls-tree", "HEAD", name):
            raise ValueError(f"no {name} is committed; run `dvc repro`, and commit {FOLDER} and dvc.lock")
        manifests[stage] = parse_manifest(git("show", f"HEAD:{name}"), name)
    return manifests


def _reproduce(scratch: Path) -> Path:
    """Make everything in the clone `scratch`; return the file that marks it as unfinished."""
    scratch, marker = scratch.resolve(), scratch.resolve() / ".git/tseg-audit.json"
    conditions = json.dumps([git("rev-parse", "HEAD").strip(), versions(), machine_name(machine())])
    if not scratch.exists():
        git("clone", "--quiet", ".", str(scratch))
        marker.write_text(conditions, encoding="utf-8")
    elif not marker.exists() or marker.read_text(encoding="utf-8") != conditions:
        raise ValueError(
            f"{scratch} is no unfinished audit of this commit with these libraries; name a folder that does not "
            "exist, or remove this one if an earlier audit made it"
        )
    if edited := git("diff", "--name-only", "HEAD", "--", *DECISIVE, folder=scratch).split("\n")[0]:
        raise ValueError(f"{scratch / edited} was edited; remove {scratch}, and the audit begins anew")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [f"{scratch / 'src'}", os.environ.get("PYTHONPATH")])),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "dvc", "repro", "--force", "--no-commit", "--no-run-cache"]
    if subprocess.run(command, cwd=scratch, env=environment, check=False).returncode:
        raise ValueError(f"the workflow failed in {scratch}, see above; mend the cause, and the same command goes on")
    return marker


def _compare(manifests: Mapping[str, Manifest], folder: Path, other: Path | None, tolerance: float) -> list[Found]:
    """The verdict on every file of the manifests in `folder`; `other` is a folder with results to compare with."""
    expected = {path: content for manifest in manifests.values() for path, content in manifest.files.items()}
    now = {path: content_of(folder / path) for path in expected if (folder / path).exists()}
    found: list[Found] = []
    for stage, manifest in manifests.items():
        for path, content in manifest.files.items():
            if path not in now:
                found.append(Found(stage, path, "missing"))
            elif now[path].sha256 == content.sha256:
                found.append(Found(stage, path, "identical"))
            elif path.endswith("/"):
                names = _names_of_others(folder / path, other / path) if other else ""
                found.append(Found(stage, path, "different", names))
            else:
                found.append(_judge(Found(stage, path, "different"), folder, manifest, expected, now, tolerance))
    wrong = {each.path for each in found if each.verdict in ("different", "missing")}
    return [each._replace(cause=each.cause if each.cause in wrong else "") for each in found]


def _judge(
    different: Found,
    folder: Path,
    manifest: Manifest,
    expected: Mapping[str, Content],
    now: Mapping[str, Content],
    tolerance: float,
) -> Found:
    """The verdict on a file with other bytes, and why it has them, as its note tells."""
    path = different.path
    try:
        note = read_note(folder / path)
    except ValueError as error:
        return different._replace(reason=str(error))
    if note is None:
        return different
    if note.sha256 != now[path].sha256:
        return different._replace(reason="was changed after it was made")
    is_elsewhere = bool(manifest.machines) and machine_name(note.machine) not in manifest.machines
    is_rounded = is_elsewhere and not _is_exact(different.stage, path)
    verdict = "within tolerance" if is_rounded and _scores_agree(path, expected, now, tolerance) else "different"
    return Found(different.stage, path, verdict, _reason(note, manifest), _cause(note, expected, now))


def _is_exact(stage: str, path: str) -> bool:
    return stage in ("data", "records") or path.endswith(EXACT) or Path(path).stem == "overlaps"


def _cause(note: Note, expected: Mapping[str, Content], now: Mapping[str, Content]) -> str:
    """The first input of a file that differs from the manifests; empty if none does."""
    others = (path for path in note.inputs if path in expected)
    return next((path for path in others if path not in now or now[path].sha256 != expected[path].sha256), "")


def _scores_agree(path: str, expected: Mapping[str, Content], now: Mapping[str, Content], tolerance: float) -> bool:
    """Whether the scores that judge a file are all within `tolerance` points.

    They are its own; or those of the table of which it is a format; or those of its run and seed; or else all scores.
    """
    scored = {name for name, content in expected.items() if content.scores}
    table = str(Path(path.replace("_detail.csv", ".csv")).with_suffix(".json"))
    of_seed = {name for name in scored if Path(name).parts[-3:-1] == Path(path).parts[-3:-1]}
    judging = scored & {path} or scored & {table} or of_seed or scored
    pairs = [(expected[name].scores, now[name].scores if name in now else {}) for name in judging]
    return bool(pairs) and all(
        before.keys() == after.keys() and all(abs(after[key] - before[key]) <= tolerance for key in before)
        for before, after in pairs
    )


def _reason(note: Note, manifest: Manifest) -> str:
    """How a file was made, and with what that the manifest does not name."""
    made = f"was made {note.started} by {' '.join(note.command[:2])}, git {note.revision}"
    return "; ".join([made, *manifest.others(note.versions, machine_name(note.machine))])


def _names_of_others(folder: Path, other: Path) -> str:
    """The files of `folder` that are others than those of the folder `other`; empty if that has none."""
    here, there = hashes_in(folder), hashes_in(other)
    names = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return f"in {', '.join(names[:NUM_NAMED])}{more}" if there else ""


def _print_changes(console: Console, manifests: Mapping[str, Manifest]) -> None:
    """Print what differs between the conditions of the manifests and those of now."""
    installed, processor = versions(), machine_name(machine())
    others: list[str] = []
    for manifest in manifests.values():
        here = next((name for name in manifest.machines if name.startswith(processor)), processor)
        others += manifest.others(installed, here)
    settings, files = changes_since(str(FOLDER), "dvc.lock")
    lines = [*dict.fromkeys(others), *settings]
    if lines or files:
        console.print("[bold]Changed since the committed manifests were made[/]")
    for line in lines:
        console.print(f"  {escape(line)}")
    print_lines(console, files, "files")


def _print_verdicts(console: Console, title: str, found: list[Found]) -> None:
    table = Table("stage", title=title, title_justify="left", title_style="bold")
    for verdict in VERDICTS:
        table.add_column(verdict, justify="right")
    for stage in STAGES:
        counts = [sum(each.stage == stage and each.verdict == verdict for each in found) for verdict in VERDICTS]
        table.add_row(stage, *(str(count) if count else "" for count in counts))
    console.print(table)
    for verdict in ("different", "missing"):
        wrong = [each for each in found if each.verdict == verdict]
        roots = [each for each in wrong if not each.cause]
        lines = [f"{each.path}: {verdict}" + (f", {each.reason}" if each.reason else "") for each in roots]
        print_lines(console, lines, verdict)
        if len(wrong) > len(roots):
            console.print(f"  {verdict} because of these: {len(wrong) - len(roots)}")
