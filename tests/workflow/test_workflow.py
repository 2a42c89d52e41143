"""The workflow as users run it: snakemake in a process of its own, on a few small pictures."""

import copy
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
METHODS = [
    {"method": "GAP", "pooling": "gap"},
    {"method": "SPA", "pooling": "spa"},
    {"method": "TSEG", "pooling": "mpa"},
    {"method": "TSEG (CRF)", "pooling": "mpa", "crf": True},
]


def snakemake(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["snakemake", "--cores", "2", "--snakefile", str(ROOT / "Snakefile"), *arguments]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, text=True, capture_output=True, check=False)


def small_settings(folder: Path) -> dict[str, Any]:
    """The default configuration, shrunk to seconds, with absolute paths below `folder`."""
    experiments = {"tables": {"table3": {"number": "3", "columns": {"refcoco+": "RefCOCO+"}, "rows": METHODS}}}
    (folder / "experiments.yaml").write_text(yaml.safe_dump(experiments))
    text = (ROOT / "config/config.yaml").read_text().replace("data/raw", f"{folder}/data/raw")
    settings = yaml.safe_load(text)
    settings |= {
        "data_dir": f"{folder}/data",
        "results_dir": f"{folder}/results",
        "experiments": f"{folder}/experiments.yaml",
        "published": str(ROOT / "config/published.csv"),
        "tracking_uri": f"sqlite:///{folder}/results/mlflow.db",
        "num_bootstrap": 50,
    }
    settings["sources"]["shapes"] |= {"num_train": 12, "num_val": 4}
    settings["training"] |= {"iterations": dict.fromkeys(settings["datasets"], 3), "batch_size": 4, "resolution": 48}
    return settings


def run(folder: Path, settings: Mapping[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(dict(settings)))
    return snakemake("--configfile", str(config), *arguments)


def planned(folder: Path, settings: Mapping[str, Any], target: str = "table3.csv") -> set[str]:
    """The outputs, below results, that a dry run would make again."""
    dry = run(folder, settings, "--dry-run", f"{folder}/results/{target}")
    assert dry.returncode == 0, dry.stdout + dry.stderr
    outputs = re.findall(r"^    output: (.*)$", dry.stdout + dry.stderr, re.MULTILINE)
    return {path.removeprefix(f"{folder}/results/") for line in outputs for path in line.split(", ")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("project")
    settings = small_settings(folder)
    done = run(folder, settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, settings


def test_the_table_has_the_rows_and_columns_of_the_experiments(finished):
    folder, _ = finished
    table = pd.read_csv(folder / "results/table3.csv", comment="#")
    assert list(table.columns) == ["Method", "RefCOCO+"]
    assert list(table["Method"]) == [row["method"] for row in METHODS]
    assert table["RefCOCO+"].between(0, 100).all()


def test_a_table_cell_is_the_mean_of_its_scores(finished):
    folder, _ = finished
    table = pd.read_csv(folder / "results/table3.csv", comment="#").set_index("Method")["RefCOCO+"]
    scores = pd.read_parquet(folder / "results/scores/refcoco+-mpa/seed0-crf.parquet")
    assert table["TSEG (CRF)"] == pytest.approx(100 * scores["iou"].mean(), abs=0.005)


def test_a_second_run_has_nothing_to_do(finished):
    folder, settings = finished
    assert "Nothing to be done" in (again := run(folder, settings, "--dry-run")).stdout + again.stderr


def test_the_report_shows_tables_and_figures(finished):
    folder, settings = finished
    report = folder / "report.html"
    done = run(folder, settings, "--report", str(report))
    assert done.returncode == 0, done.stderr
    page = report.read_text()
    assert all(name in page for name in ("table3.html", "refcoco+-masks.png", "refcoco+-curves.png"))


def test_another_crf_preset_refines_again_and_trains_nothing(finished):
    folder, settings = finished
    changed = copy.deepcopy(settings)
    changed["inference"]["crf"] = "irn"
    assert planned(folder, changed) == {
        "masks/refcoco+-mpa/seed0-crf.parquet",
        "scores/refcoco+-mpa/seed0-crf.parquet",
        "scores/refcoco+-mpa/seed0-crf.json",
        *(f"table3{ending}" for ending in (".csv", ".md", ".tex", ".html", ".json", "_detail.csv")),
    }


def test_another_lambda_concerns_spa_and_mpa_alone(finished):
    folder, settings = finished
    changed = copy.deepcopy(settings)
    changed["weighting"]["size_lambda"] = 0.1
    trained = {path for path in planned(folder, changed) if path.startswith(("runs", "predictions", "masks"))}
    assert {path.split("/")[1] for path in trained} == {"refcoco+-spa", "refcoco+-mpa"}


def test_another_store_trains_nothing(finished):
    folder, settings = finished
    again = planned(folder, settings | {"tracking_uri": None})
    assert not {path for path in again if path.startswith("runs")}


def test_each_training_is_one_mlflow_run_that_its_evaluation_joins(finished):
    folder, _ = finished
    with sqlite3.connect(folder / "results/mlflow.db") as store:
        runs = dict(store.execute("SELECT name, run_uuid FROM runs").fetchall())
        assert set(runs) == {f"refcoco+-{pooling}/seed0" for pooling in ("gap", "spa", "mpa")}
        keys = {
            key for (key,) in store.execute("SELECT key FROM metrics WHERE run_uuid = ?", [runs["refcoco+-mpa/seed0"]])
        }
        (status,) = set(store.execute("SELECT status FROM runs").fetchall())
    assert {"loss", "learning_rate", "refcocoplus-val/plain/mIoU", "refcocoplus-val/psa/mIoU"} <= keys
    assert status == ("FINISHED",)


def test_a_lost_model_is_trained_again_to_the_same_bytes(finished, tmp_path):
    folder, _ = finished
    model = folder / "results/runs/refcoco+-mpa/seed0/model.safetensors"
    command = [
        "tseg",
        "train",
        "--config",
        f"{folder}/results/runs/refcoco+-mpa/config.yaml",
        "--output",
        str(tmp_path / "again"),
    ]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again/model.safetensors").read_bytes() == model.read_bytes()


def test_training_survives_a_store_that_is_away_and_says_so_once(finished, tmp_path):
    folder, _ = finished
    (tmp_path / "tracking.json").write_text(json.dumps({"uri": "http://127.0.0.1:9"}))
    command = ["tseg", "train", "--config", f"{folder}/results/runs/refcoco+-gap/config.yaml"]
    command += ["--output", str(tmp_path), "--tracking", str(tmp_path / "tracking.json")]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the run goes on untracked") == 1
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wieghting": {}}, "unknown key wieghting; did you mean weighting?"),
        ({"seeds": "many"}, "seeds: "),
        ({"inference": {"crf": "pas"}}, "inference.crf: "),
        ({"published": "nowhere.csv"}, "nowhere.csv"),
    ],
)
def test_a_wrong_setting_is_one_sentence_before_any_work(tmp_path, change, message):
    settings = small_settings(tmp_path)
    for key, value in change.items():
        settings[key] = settings[key] | value if isinstance(value, dict) and key in settings else value
    refused = run(tmp_path, settings, "--dry-run")
    assert refused.returncode != 0
    assert message in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_papers_configuration_plans_every_run_of_table_3(tmp_path):
    settings = yaml.safe_load((ROOT / "config/paper.yaml").read_text().replace("data/paper", f"{tmp_path}/data"))
    settings["results_dir"] = f"{tmp_path}/results"
    settings["data_dir"] = f"{tmp_path}/data"
    plan = planned(tmp_path, settings)
    assert len([path for path in plan if path.endswith("model.safetensors")]) == 16
    assert len([path for path in plan if path.startswith("scores") and path.endswith(".json")]) == 20
