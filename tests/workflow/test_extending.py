"""The example of docs/extending.md works as printed."""

import json
import re
from pathlib import Path

import pytest
import yaml

from .reader import blocks_of, copy_project, run


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the example of the page, at a minimal scale."""
    folder = tmp_path_factory.mktemp("reader")
    copy_project(folder)
    function, line, table = [text for kind, text in blocks_of("docs/extending.md") if kind != "sh"]
    with (folder / "src/tseg/model/pooling.py").open("a") as pooling:
        pooling.write(f"\n\n{function}")
    path = folder / "config/experiments.yaml"
    experiments = path.read_text(encoding="utf-8").replace("\ntables:\n", f"{line}\ntables:\n{table}\n")
    path.write_text(experiments, encoding="utf-8")
    settings = yaml.safe_load((folder / "config/config.yaml").read_text())
    settings["tracking_uri"] = None
    catalogue = yaml.safe_load((folder / "config/sources.yaml").read_text())
    small = {"num_train": 8, "num_val": 3}
    drawn = {name: source | small for name, source in catalogue.items() if source["kind"] == "shapes"}
    (folder / "config/sources.yaml").write_text(yaml.safe_dump(drawn))
    settings["training"]["weak"] |= {"iterations": dict.fromkeys(settings["datasets"], 2), "resolution": 48}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def snakemake(project: Path, *arguments: str) -> str:
    return run(project, "snakemake", "--cores", "2", *arguments)


def test_one_function_and_one_line_put_a_method_into_all_tables_of_methods(project: Path) -> None:
    plan = snakemake(project, "--dry-run", "results/table3.csv", "results/table1.csv", "results/phrasecut_subsets.csv")
    planned = set(re.findall(r"output: results/runs/(\S+-lse\S*)/seed0", plan))
    on_voc = {"voc-lse", "voc-lse+image_encoder=wide_resnet38"}
    assert planned == on_voc | {f"{dataset}-lse" for dataset in ("phrasecut", "refcoco", "refcoco+", "refcocog")}
    assert "--label=LSE" in snakemake(project, "--dry-run", "-p", "results/figures/figure4.png")


def test_an_invalid_option_stops_the_workflow_before_any_work(project: Path) -> None:
    path = project / "config/experiments.yaml"
    experiments = path.read_text(encoding="utf-8")
    (project / "config/wrong.yaml").write_text(experiments.replace("{temperature: 5}", "{temperatur: 5}"))
    command = ["snakemake", "--dry-run", "--config", "experiments=config/wrong.yaml"]
    with pytest.raises(AssertionError, match="unknown key temperatur; did you mean temperature"):
        run(project, *command)


def test_the_new_table_is_made_by_its_own_runs(project: Path) -> None:
    snakemake(project, "results/temperature.csv", "results/scores/phrasecut-lse/seed0/phrasecut-val-plain.json")
    rows = (project / "results/temperature.csv").read_text().splitlines()[2:]
    assert [row.split(",")[0] for row in rows] == ["5", "10"]
    assert {path.parts[-3] for path in (project / "results/runs").glob("*/seed0/model.safetensors")} == {
        *("phrasecut-lse", "phrasecut-lse+tau=5"),
        *("phrasecut-lse+temperature=1", "phrasecut-lse+tau=5+temperature=1"),
    }
    assert json.loads((project / "results/tracking.json").read_text()) == {"uri": None}
