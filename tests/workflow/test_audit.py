"""`tseg audit` on a small project under git: what is identical, and what is named when something was changed."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tseg.settings.verified import SEEDS

from .reader import ROOT, copy_project, run
from .small import write_small_catalogue

TABLE = "supervision"
RECORDS = "data/records/refcoco+/val.parquet"
SUMMARY = "results/scores/refcoco+-mpa/seed0/refcoco+-val-plain.json"


def audit(project: Path, *options: str, code: int = 0) -> str:
    return run(project, "tseg", "audit", *options, code=code)


def counts(text: str, where: str) -> dict[str, list[int]]:
    """Stage to the numbers of files that are identical, within tolerance, different and missing."""
    lines = text.partition(f"Results {where}")[2].partition("└")[0].splitlines()
    rows = [line.replace("┃", "│").split("│")[1:-1] for line in lines if line.startswith("│")]
    return {row[0].strip(): [int(cell) if cell.strip() else 0 for cell in row[1:]] for row in rows}


def write_audited(folder: Path) -> None:
    """A project with two tables of two trainings, a figure, and the stages of dvc.yaml that make them."""
    copy_project(folder)
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    settings = yaml.safe_load((folder / "config/config.yaml").read_text())
    settings["datasets"] = {name: settings["datasets"][name] for name in ("refcoco+",)}
    for training in settings["training"].values():
        small = {name: {"refcoco+": number} for name, number in (("iterations", 6), ("batch_size", 4))}
        training.update(small, resolution=48)
    settings["inference"]["resolution"] = {"weak": 48, "full": 48}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(settings))
    write_small_catalogue(folder / "config/sources.yaml")
    experiments = yaml.safe_load((folder / "config/experiments.yaml").read_text())
    cells = {"dataset": "refcoco+", "method": "TSEG"}
    rows = {"Words": {}, "Boxes first": {"settings": {"training.weak.pretraining": "refcoco+"}}}
    table = {"number": "S", "title": "t", "cells": cells, "columns": {"mIoU": {}}}
    experiments["tables"] = {TABLE: table | {"rows": rows}, "table3": table | {"rows": {"Words": {}}}}
    figure = {"kind": "masks", "title": "t", "caption": "c", "cells": cells, "columns": {"TSEG": {}}}
    experiments["figures"] = {"figure": figure}
    (folder / "config/experiments.yaml").write_text(yaml.safe_dump(experiments))
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    stages["stages"]["training"]["outs"] = [
        out for out in stages["stages"]["training"]["outs"] if "results/pseudo_labels" not in out
    ]
    tables = stages["stages"]["tables"]
    sheets = [f"{table}.{kind}" for table in (TABLE, "table3") for kind in ("csv", "json")]
    made = {f"results/{name}" for name in (*sheets, "datasets.csv", "overlaps.csv")}
    made |= {"results/figures", "results/curves", "results/stages/tables.json"}
    for kind in ("outs", "metrics"):
        tables[kind] = [out for out in tables[kind] if set(out) <= made]
    (folder / "dvc.yaml").write_text(yaml.safe_dump(stages))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small project after `dvc repro`, with its manifests committed."""
    folder = tmp_path_factory.mktemp("audited")
    write_audited(folder)
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "repro", "--quiet")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "Results")
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A copy of `made` to tamper with."""
    return Path(shutil.copytree(made, tmp_path / "project", symlinks=True))


def test_results_made_again_in_a_clone_are_identical(project: Path) -> None:
    image = next((project / "data/raw").rglob("*.jpg"))
    image.write_bytes(image.read_bytes() + b"x")
    (project / SUMMARY).unlink()
    told = audit(project, "--scratch=.audit", code=1)
    again = counts(told, "made again")
    assert list(again) == list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    assert all(identical and not any(others) for identical, *others in again.values())
    assert f"{image.parent.relative_to(project)}/: different, in {image.name}" in told
    assert f"{SUMMARY}: missing" in told and "Changed since" not in told


def test_a_tampered_file_is_named_and_so_is_a_missing_one(project: Path) -> None:
    summary = json.loads((project / SUMMARY).read_text())
    summary["metrics"]["mIoU"] += 0.2
    (project / SUMMARY).write_text(json.dumps(summary))
    image = next((project / "data/raw").rglob("*.jpg"))
    image.unlink()
    (project / "results/figures/figure.png").unlink()
    told = audit(project, code=1)
    assert f"{SUMMARY}: different, was changed after it was made" in told
    assert f"{image.parent.relative_to(project)}/: different" in told
    assert "results/figures/figure.png: missing" in told
    assert counts(told, "in this folder")["evaluation"][1:] == [0, 1, 0]


def test_a_changed_setting_is_named_by_its_key(project: Path) -> None:
    path = project / "config/config.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["training"]["weak"]["optimizer"]["learning_rate"] = 0.01
    settings["seeds"] = [1]
    path.write_text(yaml.safe_dump(settings))
    told = audit(project)
    assert "config/config.yaml: training.weak.optimizer.learning_rate is 0.01, was 0.002 (not committed)" in told
    assert "config/config.yaml: seeds is [1], was [0] (not committed)" in told


def test_results_of_a_changed_setting_differ(project: Path) -> None:
    path = project / "config/config.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["inference"]["resolution"] = {"weak": 60, "full": 60}
    path.write_text(yaml.safe_dump(settings))
    run(project, "git", "commit", "--quiet", "--all", "--message", "Another resolution")
    run(project, "snakemake", "--cores", "2")
    told = audit(project, code=1)
    assert "config/config.yaml: inference.resolution.weak is 60, was 48" in told and "not committed" not in told
    found = counts(told, "in this folder")
    assert found["evaluation"][2] and found["tables"][2]
    assert not any(any(found[stage][1:]) for stage in ("data", "records", "pretraining", "training"))


def test_new_removed_and_strange_files_are_named(project: Path) -> None:
    (project / "config/paper.yaml").unlink()
    shutil.copy(project / "config/photos.yaml", project / "config/größe x.yaml")
    run(project, "git", "add", "--all")
    run(project, "git", "commit", "--quiet", "--message", "Others")
    (project / "config/größe x.yaml").write_text("seeds: [1")
    (project / "config/mine.yaml").write_text("seeds: [1]")
    told = audit(project)
    for line in (
        "paper.yaml was removed",
        "größe x.yaml is new",
        "größe x.yaml has changed, and is no YAML (not committed)",
        "mine.yaml is new (not committed)",
    ):
        assert f"config/{line}\n" in told


@pytest.mark.parametrize("content", ["[]", '{"mean": {"Words": {"mIoU": null}}}', '{"mean"'])
def test_a_table_that_is_none_any_more_is_named(project: Path, content: str) -> None:
    (project / f"results/{TABLE}.json").write_text(content)
    assert f"results/{TABLE}.json: different, was changed after it was made" in audit(project, code=1)


def test_a_changed_setting_is_named_before_any_number_of_files(project: Path) -> None:
    for module in sorted((project / "src").rglob("*.py"))[:30]:
        module.write_text(f"{module.read_text()}\n# A comment.\n")
    text = (project / "config/config.yaml").read_text()
    (project / "config/config.yaml").write_text(f"{text}\nspare: null\n")
    told = audit(project)
    assert "config/config.yaml: spare is null, was absent (not committed)" in told
    assert "  and 10 more files\n" in told
    run(project, "git", "clone", "--quiet", "--depth=1", f"file://{project}", "shallow")
    for folder in ("results", "data"):
        shutil.copytree(project / folder, project / "shallow" / folder, dirs_exist_ok=True)
    (project / "shallow/config/config.yaml").write_text(f"{text}\nspare: null\n")
    told = audit(project / "shallow")
    assert "are not in this shallow clone" in told and "spare is null, was absent (not committed)" in told


def test_a_file_that_was_tampered_with_enters_no_manifest(project: Path) -> None:
    table = project / f"results/{TABLE}.csv"
    table.write_text(table.read_text().replace("Words", "Words alone"))
    run(project, "snakemake", "--cores", "1", "--force", "--", "results/stages/tables.json", code=1)
    log = (project / "results/logs/manifest/tables.log").read_text()
    assert f"results/{TABLE}.csv was changed after it was made; remove it" in log


def test_trainings_are_verified_by_those_of_several_seeds(project: Path) -> None:
    reference = "results/reference/refcoco+-mpa.json"
    run(project, "snakemake", "--cores=2", "--", reference)
    assert f"Trainings: {len(SEEDS)} of {len(SEEDS)} inside the envelope; " in run(project, "tseg", "verify")
    path = project / "config/config.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.002", "learning_rate: 0.2"))
    run(project, "snakemake", "--cores=2", "--", SUMMARY)
    told = run(project, "tseg", "verify", code=1)
    assert "refcoco+-mpa, seed 0: its first losses are not those of seed 0\n" in told
    assert "refcoco+-mpa, seed 0: training.optimizer.learning_rate is 0.2, was 0.002\n" in told


def pretend_another_machine(project: Path, change: float) -> None:
    """Commit manifests of another processor and another Pillow, with other bytes and scores of a run and the table."""
    for path in (project / "results/stages").glob("*.json"):
        manifest = json.loads(path.read_text())
        manifest["versions"]["pillow"] = ["5.0"]
        manifest["machines"] = ["Abacus"]
        for name, content in manifest["files"].items():
            if "/refcoco+-mpa/seed0/" in name or f"results/{TABLE}" in name or name == RECORDS:
                content["sha256"] = "0" * 64
                content["scores"] = {key: value + change for key, value in content.get("scores", {}).items()}
        path.write_text(json.dumps(manifest))
    run(project, "git", "commit", "--quiet", "--all", "--message", "Of another machine")


def test_on_another_processor_scores_are_compared(project: Path) -> None:
    pretend_another_machine(project, change=4)
    told = audit(project, code=1)
    assert "the processor is" in told and "was Abacus" in told
    assert "pillow is" in told and "was 5.0" in told
    found = counts(told, "in this folder")
    assert found["records"][1:] == [0, 1, 0]  # records depend on no processor
    assert found["training"][1:] == [2, 1, 0]  # model and history, but no list of images
    assert found["evaluation"][1:] == [4, 0, 0]
    assert found["tables"][1:] == [6, 0, 0]
    stricter = counts(audit(project, "--tolerance=3", code=1), "in this folder")
    assert [stricter[stage][1:] for stage in ("training", "evaluation", "tables")] == [[0, 3, 0], [0, 4, 0], [0, 6, 0]]


def test_a_table_is_judged_by_its_own_numbers(project: Path) -> None:
    pretend_another_machine(project, change=4)
    path = project / "results/stages/tables.json"
    manifest = json.loads(path.read_text())
    assert manifest["files"]["results/table3.json"]["scores"].keys() == {"Words, mIoU"}
    for name, content in manifest["files"].items():
        if name.startswith("results/table3"):
            scores = {key: value + 40 for key, value in content.get("scores", {}).items()}
            content |= {"sha256": "0" * 64, "scores": scores}
    path.write_text(json.dumps(manifest))
    run(project, "git", "commit", "--quiet", "--all", "--message", "Another Table 3")
    told = audit(project, code=1)
    assert "results/table3.csv: different" in told and f"results/{TABLE}.csv" not in told
    assert counts(told, "in this folder")["tables"][1:] == [6, 6, 0]


def test_what_was_tampered_with_is_different_on_any_processor(project: Path) -> None:
    pretend_another_machine(project, change=0)
    model = project / "results/runs/refcoco+-mpa/seed0/model.safetensors"
    model.write_bytes(b"other")
    told = audit(project, code=1)
    assert f"{model.relative_to(project)}: different, was changed after it was made" in told
    assert counts(told, "in this folder")["training"][1:] == [1, 2, 0]  # and the list of images


def test_what_an_audit_needs_is_said(project: Path, tmp_path: Path) -> None:
    assert "run the audit at the project's root" in audit(project / "config", code=1)
    assert "is no unfinished audit" in audit(project, "--scratch=.", code=1)
    run(project, "git", "clone", "--quiet", ".", str(tmp_path / "clone"))
    assert "has no results; make them with snakemake --cores all" in audit(tmp_path / "clone", code=1)
    run(project, "git", "rm", "--quiet", "--cached", "results/stages/data.json")
    run(project, "git", "commit", "--quiet", "--message", "Without a manifest")
    assert "no results/stages/data.json is committed; run `dvc repro`" in audit(project, code=1)
    (tmp_path / "nothing").mkdir()
    assert "not a git repository" in audit(tmp_path / "nothing", code=1)
