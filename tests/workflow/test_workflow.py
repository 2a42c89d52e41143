"""The workflow, run by snakemake in a process of its own on a few small images."""

import copy
import hashlib
import importlib
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import pytest
import yaml

from tseg import source
from tseg.cli import app
from tseg.lineage import note_path, read_note
from tseg.settings import code as code_module
from tseg.settings.code import NEUTRAL, predict_code, prepare_code, train_code
from tseg.settings.plan import Plan

from .small import ENVIRONMENT, METHODS, NUM_VAL, ROOT, TABLES, small_settings


def snakemake(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["snakemake", "--cores", "2", "--snakefile", str(ROOT / "Snakefile"), *arguments]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, text=True, capture_output=True, check=False)


def run(folder: Path, settings: Mapping[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(dict(settings)))
    return snakemake("--configfile", str(config), *arguments)


def planned(folder: Path, settings: Mapping[str, Any], target: str = "table3.csv") -> set[str]:
    """The outputs, below results, that a dry run would make again."""
    dry = run(folder, settings, "--dry-run", *([f"{folder}/results/{target}"] if target else []))
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
    assert list(table["Method"]) == [*METHODS, "TSEG (CRF)"]
    assert table["RefCOCO+"].between(0, 100).all()


def test_a_class_encoder_a_zero_shot_and_a_pretrained_run_reach_their_tables(finished):
    folder, settings = finished
    tables = {name: pd.read_csv(folder / f"results/{name}.csv", comment="#", index_col=0) for name in TABLES}
    assert list(tables["table1"].index) == ["GAP, narrow"]
    assert list(tables["zero_shot"].index) == ["mIoU", *settings["datasets"]["voc"]["classes"]]
    assert tables["supervision"].notna().all(axis=None)
    scored = pd.read_parquet(folder / "results/scores/refcoco+-mpa/seed0/voc-val-plain.parquet")
    assert len(scored) == NUM_VAL


def test_the_table_notes_that_a_narrow_net_is_a_stand_in(finished):
    folder, _ = finished
    assert "stand-in" in (folder / "results/table1.md").read_text(encoding="utf-8")


def test_a_table_cell_is_the_mean_of_its_scores(finished):
    folder, _ = finished
    table = pd.read_csv(folder / "results/table3.csv", comment="#").set_index("Method")["RefCOCO+"]
    scores = pd.read_parquet(folder / "results/scores/refcoco+-mpa/seed0/refcoco+-val-crf.parquet")
    assert table["TSEG (CRF)"] == pytest.approx(100 * scores["iou"].mean(), abs=0.005)


def test_a_second_run_has_nothing_to_do(finished):
    folder, settings = finished
    assert "Nothing to be done" in (again := run(folder, settings, "--dry-run")).stdout + again.stderr


def test_files_of_another_time_and_the_same_content_make_nothing_again(finished):
    folder, settings = finished
    files = [*folder.glob("results/runs/*/seed0/model.safetensors"), *folder.glob("data/records/*/*.parquet")]
    assert max(file.stat().st_size for file in files) > 1e6  # Snakemake's default compares the times of such files
    for file in files:
        file.touch()
    assert planned(folder, settings, "") == set()


def test_the_report_shows_tables_and_figures(finished):
    folder, settings = finished
    report = folder / "report.html"
    done = run(folder, settings, "--report", str(report))
    assert done.returncode == 0, done.stderr
    page = report.read_text()
    assert all(
        name in page for name in ("table3.html", "figures/masks.png", "curves/table1.png", "refcoco+-full/config.yaml")
    )


def test_another_crf_preset_refines_again_and_trains_nothing(finished):
    folder, settings = finished
    changed = copy.deepcopy(settings)
    changed["inference"]["crf"] = "irn"
    assert planned(folder, changed) == {
        "masks/refcoco+-mpa/seed0/refcoco+-val-crf.parquet",
        "scores/refcoco+-mpa/seed0/refcoco+-val-crf.parquet",
        "scores/refcoco+-mpa/seed0/refcoco+-val-crf.json",
        *(f"table3{ending}" for ending in (".csv", ".md", ".tex", ".html", ".json", "_detail.csv")),
    }


def test_another_lambda_retrains_only_spa_and_mpa(finished):
    folder, settings = finished
    experiments = (folder / "experiments.yaml").read_text().replace("size_lambda: 0.01", "size_lambda: 0.1")
    (folder / "others.yaml").write_text(experiments)
    again = planned(folder, settings | {"experiments": f"{folder}/others.yaml"})
    trained = {path for path in again if path.startswith(("runs", "predictions", "masks"))}
    assert {path.split("/")[1] for path in trained} == {"refcoco+-spa+size_lambda=0.1", "refcoco+-mpa+size_lambda=0.1"}


def test_another_image_encoder_is_checked_and_retrains_only_its_runs(finished):
    folder, settings = finished
    changed = copy.deepcopy(settings)
    changed["image_encoders"]["vit"]["drop_path"] = 0.1
    again = planned(folder, changed, "")
    trained = {path.split("/")[1] for path in again if path.endswith("model.safetensors")}
    assert trained == {path.parts[-3] for path in folder.glob("results/runs/refcoco+-*/seed0/model.safetensors")}
    assert len([path for path in again if path.startswith("encoders/")]) == 3  # one for each supervision


def test_settings_that_do_not_concern_records_prepare_none_again(finished):
    folder, settings = finished
    changed = copy.deepcopy(settings)
    changed["datasets"]["refcoco+"]["published"] = {"test": {"expressions": 5, "images": 5}}
    assert planned(folder, changed, "") == set()


def test_a_table_of_200_kilobytes_is_written(finished):
    folder, settings = finished
    experiments = yaml.safe_load((folder / "experiments.yaml").read_text())
    experiments["tables"]["table3"]["note"] = "long " * 40_000
    (folder / "long.yaml").write_text(yaml.safe_dump(experiments))
    changed = settings | {"experiments": f"{folder}/long.yaml"}
    ends = (".csv", ".md", ".tex", ".html", ".json", "_detail.csv")
    assert planned(folder, changed) == {f"table3{end}" for end in ends}
    done = run(folder, changed, "--", f"{folder}/results/table3.csv")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "long long" in (folder / "results/table3.md").read_text()
    assert run(folder, settings, "--", f"{folder}/results/table3.csv").returncode == 0


def test_another_caption_draws_its_figure_again(finished):
    folder, settings = finished
    experiments = (folder / "experiments.yaml").read_text().replace("A caption.", "Another caption.", 1)
    (folder / "others.yaml").write_text(experiments)
    again = planned(folder, settings | {"experiments": f"{folder}/others.yaml"}, "")
    assert again == {"figures/assignment.png"}  # the first in the file


def test_another_store_trains_nothing(finished):
    folder, settings = finished
    again = planned(folder, settings | {"tracking_uri": None})
    assert not {path for path in again if path.startswith("runs")}


def test_each_training_is_one_mlflow_run_that_its_evaluation_joins(finished):
    folder, _ = finished
    with sqlite3.connect(folder / "results/mlflow.db") as store:
        runs = dict(store.execute("SELECT name, run_uuid FROM runs").fetchall())
        assert {f"refcoco+-{pooling}/seed0" for pooling in ("gap", "spa", "mpa", "full", "boxes")} < set(runs)
        keys = {
            key for (key,) in store.execute("SELECT key FROM metrics WHERE run_uuid = ?", [runs["refcoco+-mpa/seed0"]])
        }
        (status,) = set(store.execute("SELECT status FROM runs").fetchall())
    assert {
        "loss",
        "learning_rate",
        "refcocoplus-val-plain/mIoU",
        "refcocoplus-val-crf/mIoU",
        "voc-valpluslabels-better_words-plain/mIoU",
    } <= keys
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


def executed_by(arguments: list[str]) -> set[source.Definition]:
    """The definitions of the package, methods by their class, whose code a sub-command executes in this thread."""
    package, found = ROOT / "src/tseg", set()
    for path in package.rglob("*.py"):  # what an import executes is not of interest
        importlib.import_module(".".join(path.relative_to(package.parent).with_suffix("").parts))

    def profile(frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(package):
            module = ".".join(["tseg", *path.relative_to(package).with_suffix("").parts]).removesuffix(".__init__")
            name = frame.f_code.co_qualname.partition(".")[0]
            found.add(source.Definition(module, source.REST if name.startswith("<") else name))

    sys.setprofile(profile)
    try:
        app(arguments, standalone_mode=False)
    finally:
        sys.setprofile(None)
    return found


def test_the_hash_of_the_code_covers_what_a_command_executes(finished, tmp_path):
    folder, settings = finished
    plan = Plan(settings, "config.yaml")
    run, evaluation, records = "refcoco+-mpa", "refcoco+-val", f"{folder}/data/records/refcoco+"
    model = f"{folder}/results/runs/{run}"
    predictions = f"{folder}/results/predictions/{run}/seed0/{evaluation}.parquet"
    masks = f"{folder}/results/masks/{run}/seed0/{evaluation}-crf.parquet"
    dataset = json.dumps(plan.settings.datasets["refcoco+"].model_dump(mode="json"))
    inference = ["--records", f"{records}/val.parquet", "--output", f"{tmp_path}/output.parquet"]
    commands = {
        "prepare": (["refcoco+", "val", "--settings", dataset, *inference[2:]], prepare_code),
        "train": (["--config", f"{model}/config.yaml", "--output", f"{tmp_path}/model"], train_code),
        "predict": (["--model", f"{model}/seed0/model.safetensors", "--resolution", "48", *inference], predict_code),
        "refine": (["--predictions", predictions, "--crf", "psa", *inference], plan.mask_code),
        "evaluate": (["--masks", masks, "--summary", f"{tmp_path}/summary.json", *inference], plan.score_code),
    }
    inputs = {"prepare": [plan.settings.datasets["refcoco+"]], "refine": [run, evaluation, "crf"]}
    inputs |= {"train": [plan.runs[run]], "predict": [plan.runs[run]], "evaluate": [evaluation]}
    for command, (arguments, code) in commands.items():
        with pytest.MonkeyPatch.context() as patch:
            # The definitions behind the hash of exactly this job.
            patch.setattr(code_module, "digest", source.used)
            hashed: Any = code(*inputs[command])
        executed = executed_by([command, *arguments])
        neutral = {each for each in executed if each.module in NEUTRAL or each.module in ("tseg", "tseg.cli")}
        assert {each for each in executed - hashed - neutral if each.name != source.REST} == set(), command
        assert len(executed) > 10


def test_a_resolution_that_is_not_a_multiple_of_the_patch_size_is_refused(finished, tmp_path):
    folder, _ = finished
    config = (folder / "results/runs/refcoco+-full/config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config.replace("resolution: 48", "resolution: 50"))
    command = ["tseg", "train", "--config", str(tmp_path / "config.yaml"), "--output", str(tmp_path)]
    refused = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, text=True, capture_output=True, check=False)
    assert refused.returncode == 1
    assert "training.full.resolution: 50 pixels" in refused.stderr
    assert "choose a multiple of 12" in refused.stderr


def test_training_survives_an_unreachable_store_and_warns_once(finished, tmp_path):
    folder, _ = finished
    (tmp_path / "tracking.json").write_text(json.dumps({"uri": "http://127.0.0.1:9"}))
    command = ["tseg", "train", "--config", f"{folder}/results/runs/refcoco+-gap/config.yaml"]
    command += ["--output", str(tmp_path), "--tracking", str(tmp_path / "tracking.json")]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the evaluations of its model log the run") == 1
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inferense": {}}, "unknown key inferense; did you mean inference?"),
        ({"seeds": "many"}, "seeds: "),
        ({"inference": {"crf": "pas"}}, "inference.crf: "),
        ({"published": "nowhere.csv"}, "nowhere.csv"),
        ({"sources": "nowhere.yaml"}, "nowhere.yaml does not exist; set the key sources to an existing file"),
    ],
)
def test_a_wrong_setting_stops_the_workflow_with_one_sentence(tmp_path, change, message):
    settings = small_settings(tmp_path)
    for key, value in change.items():
        settings[key] = settings[key] | value if isinstance(value, dict) and key in settings else value
    refused = run(tmp_path, settings, "--dry-run")
    assert refused.returncode != 0
    assert message in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr


def test_mistakes_of_the_encoders_are_told_together_before_a_training(tmp_path):
    settings = small_settings(tmp_path)
    settings["training"]["weak"]["resolution"] = 50
    settings["image_encoders"]["vit"]["trainable"] = 30
    refused = run(tmp_path, settings, "--", f"{tmp_path}/results/runs/refcoco+-mpa/seed0/model.safetensors")
    assert refused.returncode != 0
    told = (
        "tseg: image_encoders.vit.trainable: 30 blocks cannot learn, as there are 4; choose 1 to 4\n"
        "training.weak.resolution: 50 is no multiple of the patch size 12 of image_encoders.vit; choose 48 or 60\n"
    )
    assert told in refused.stdout + refused.stderr
    assert not (tmp_path / "results/runs").exists()


def test_the_papers_configuration_plans_every_run_of_table_3_and_of_all(tmp_path):
    settings = yaml.safe_load((ROOT / "config/paper.yaml").read_text().replace("data/paper", f"{tmp_path}/data"))
    settings["results_dir"] = f"{tmp_path}/results"
    settings["data_dir"] = f"{tmp_path}/data"
    of_table_3, everything = planned(tmp_path, settings), planned(tmp_path, settings, "")
    for plan, num_models, num_summaries in ((of_table_3, 16, 20), (everything, 56, 76)):
        assert len([path for path in plan if path.endswith("model.safetensors")]) == num_models
        assert len([path for path in plan if path.startswith("scores") and path.endswith(".json")]) == num_summaries
    weights = {f"{tmp_path}/data/raw/{source}.json" for source in ("vit_small", "bert_small", "wide_resnet38")}
    assert weights & of_table_3 == weights - {f"{tmp_path}/data/raw/wide_resnet38.json"}
    assert weights <= everything


def test_every_result_has_a_note_and_a_cell_its_ancestry(finished):
    folder, _ = finished
    kept = ("config.yaml", "mlflow_run.json", "mlflow.db")
    files = [path for path in (folder / "results").rglob("*") if path.is_file() and path.name not in kept]
    made = [path for path in files if path.parent.name != ".made" and not {"logs", "benchmarks"} & set(path.parts)]
    assert len(made) > 50
    assert [path for path in made if read_note(path) is None] == []
    told = subprocess.run(
        ["tseg", "explain", str(folder / "results/table3.csv"), "--row", "TSEG (CRF)"],
        env=ENVIRONMENT,
        text=True,
        capture_output=True,
        check=True,
    ).stdout
    run_id = json.loads((folder / "results/runs/refcoco+-mpa/seed0/mlflow_run.json").read_text())["run_id"]
    assert f"run refcoco+-mpa, seed 0, MLflow run {run_id}" in told
    model = hashlib.sha256((folder / "results/runs/refcoco+-mpa/seed0/model.safetensors").read_bytes()).hexdigest()
    assert f"seed0/model.safetensors  sha256 {model[:12]}  train, " in told
    for name in ("records/refcoco+/train.parquet", "records/refcoco+/val.parquet", "refcoco+/refs(unc).p"):
        assert name in told
    assert "was changed since" not in told and "RefCOCO+: mIoU" in told and "| GAP" not in told
    assert f"again: snakemake --configfile={folder}/config.yaml --cores all --force -- " in told


def test_a_training_on_more_gpus_than_the_profile_allows_is_refused(tmp_path):
    settings = small_settings(tmp_path)
    settings["resources"]["train"]["gpu"] = 3
    done = run(tmp_path, settings, "--dry-run", "--resources", "gpu=1")
    assert done.returncode == 1
    assert "resources.train.gpu: 3 GPUs are more than 1, which the profile allows; use" in done.stdout + done.stderr


def test_what_jobs_warned_of_is_repeated_at_the_end(finished):
    folder, settings = finished
    model = folder / "results/runs/refcoco+-gap/seed0/model.safetensors"
    note = note_path(model)
    before = note.read_text()
    note.write_text(json.dumps(json.loads(before) | {"warnings": ["all masks are empty"]}))
    done = run(folder, settings, "--force", f"{folder}/results/datasets.csv")
    note.write_text(before)
    assert done.returncode == 0
    assert f"Warning, of {model}: all masks are empty" in done.stdout + done.stderr
