"""DVC lists changes to raw files and records and shares them through a common folder."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tseg.settings.stages import STAGES

from .reader import ROOT, run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its raw files and records in DVC, pushed to the folder `remote` beside it."""
    lab = tmp_path_factory.mktemp("lab") / "project"
    shutil.copytree(ROOT / ".dvc", lab / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    shutil.copy(ROOT / ".gitignore", lab)
    source = {"kind": "shapes", "sets": ["coco"], "num_train": 3, "num_val": 2, "seed": 0}
    (lab / "sources.yaml").write_text(yaml.safe_dump({"drawn": source}))
    run(lab, "git", "init", "--quiet")
    run(lab, "tseg", "fetch", "drawn", "--catalogue", "sources.yaml", "--dir", "data/lab/raw")
    refcoco = yaml.safe_load((ROOT / "config/config.yaml").read_text())["datasets"]["refcoco"]
    settings = json.dumps(refcoco | {"sources": ["drawn"]}).replace("data/raw/shapes-coco", "data/lab/raw/drawn")
    output = "data/lab/records/refcoco/val.parquet"
    run(lab, "tseg", "prepare", "refcoco", "val", f"--settings={settings}", f"--output={output}")
    run(lab, "dvc", "add", "--quiet", "data/lab/raw", "data/lab/records")
    run(lab, "dvc", "remote", "add", "--quiet", "--default", "shared", str(lab.with_name("remote")))
    run(lab, "git", "add", "--all")
    run(lab, "git", "commit", "--quiet", "--message", "Raw files and records")
    run(lab, "dvc", "push", "--quiet")
    return lab


def test_git_holds_pointers_and_no_data(lab):
    tracked = run(lab, "git", "ls-files", "data").split()
    assert sorted(tracked) == ["data/lab/.gitignore", "data/lab/raw.dvc", "data/lab/records.dvc"]


def test_status_lists_a_changed_file(lab):
    assert "up to date" in run(lab, "dvc", "status")
    image = next((lab / "data/lab/raw").rglob("*.jpg"))
    image.write_bytes(image.read_bytes() + b"x")
    assert "data/lab/raw" in run(lab, "dvc", "status")
    assert str(image.relative_to(lab)) in run(lab, "dvc", "diff")
    run(lab, "dvc", "checkout", "--quiet", "--force")
    assert "up to date" in run(lab, "dvc", "status")


def test_a_colleague_pulls_the_same_bytes(lab):
    colleague = lab.with_name("colleague")
    run(lab.parent, "git", "clone", "--quiet", str(lab), str(colleague))
    assert not (colleague / "data/lab/raw").exists()
    run(colleague, "dvc", "pull", "--quiet")
    assert contents(colleague / "data/lab/raw") == contents(lab / "data/lab/raw")
    assert contents(colleague / "data/lab/records") == contents(lab / "data/lab/records")


def test_the_audit_has_all_data_and_results_and_the_numbers_of_every_table() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    outs = {path for stage in stages.values() for out in stage["outs"] for path in out}
    metrics = {path for metric in stages["tables"]["metrics"] for path in metric}
    tables = yaml.safe_load((ROOT / "config/experiments.yaml").read_text())["tables"]
    folders = {"runs", "pseudo_labels", "predictions", "masks", "scores", "figures", "curves"}
    assert {"data/raw", "data/records", *(f"results/{name}" for name in folders)} <= outs
    assert {path for path in outs if path.endswith(".csv")} == {
        f"results/{name}.csv" for name in (*tables, "datasets", "overlaps")
    }
    assert metrics == {f"results/{table}.json" for table in tables}
    assert list(stages) == list(STAGES)
