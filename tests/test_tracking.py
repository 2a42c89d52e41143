"""The note of the MLflow store, and runs in a store that may be away."""

import contextlib
import itertools
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tseg import tracking


def test_without_a_store_the_note_holds_null(tmp_path: Path) -> None:
    tracking.set_up_store(None, ["voc"], tmp_path / "tracking.json")
    assert json.loads((tmp_path / "tracking.json").read_text()) == {"uri": None}


def test_a_failing_store_is_a_warning_and_is_noted_for_later_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(uri: str, experiments: list[str], artifacts: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(tracking, "create_store", fail)
    with pytest.warns(UserWarning, match="MLflow store sqlite:///x.db: disk full; runs will try again"):
        tracking.set_up_store("sqlite:///x.db", ["voc"], tmp_path / "tracking.json")
    assert json.loads((tmp_path / "tracking.json").read_text()) == {"uri": "sqlite:///x.db"}


SETTINGS = {"model": {"tau": 10.0}, "records": "voc.parquet", "words": "w" * 7000}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("store")
    address = f"sqlite:///{folder}/mlflow.db"
    tracking.create_store(address, ["voc"], folder / "artifacts")
    return address


@pytest.fixture
def client(uri: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(tracking, "WAITS", (0, 0))
    return MlflowClient(uri)


def train(uri: str, folder: Path, rows: range, *, training: str = "same", end: BaseException | None = None) -> None:
    """Log the `rows` of a training, and write them to its history as a whole training does."""
    with tracking.tracked(uri, "voc", "voc-mpa/seed0", SETTINGS, folder, training) as log:
        for iteration in rows:
            log({"loss": 1 / iteration}, iteration)
        if end:
            raise end
    lines = [f"{iteration},{1 / iteration}\n" for iteration in range(1, rows.stop)]
    (folder / "history.csv").write_text("iteration,loss\n" + "".join(lines))


def run_of(client: MlflowClient, folder: Path) -> Any:
    return client.get_run(json.loads((folder / tracking.RUN_FILE).read_text())["run_id"])


def steps(client: MlflowClient, folder: Path, metric: str = "loss") -> list[int]:
    return [point.step for point in client.get_metric_history(run_of(client, folder).info.run_id, metric)]


@pytest.mark.parametrize(
    ("end", "status"),
    [(None, "FINISHED"), (ValueError(), "FAILED"), (SystemExit(75), "KILLED"), (KeyboardInterrupt(), "KILLED")],
)
def test_a_run_ends_with_its_status(
    uri: str, client: MlflowClient, tmp_path: Path, end: BaseException | None, status: str
) -> None:
    with contextlib.suppress(ValueError, SystemExit, KeyboardInterrupt):
        train(uri, tmp_path, range(1, 4), end=end)
    assert run_of(client, tmp_path).info.status == status
    assert steps(client, tmp_path) == [1, 2, 3]


def test_a_resumed_training_goes_on_in_its_run_and_logs_no_step_twice(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        train(uri, tmp_path, range(1, 8), end=SystemExit(75))
    first = run_of(client, tmp_path).info.run_id
    train(uri, tmp_path, range(5, 11))  # from its checkpoint
    assert run_of(client, tmp_path).info.run_id == first
    assert run_of(client, tmp_path).info.status == "FINISHED"
    assert steps(client, tmp_path) == list(range(1, 11))


def test_a_row_that_is_logged_again_before_it_is_written_is_one_step(
    uri: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count(1_800_000_000)  # the store itself drops equal values of one millisecond
    monkeypatch.setattr(tracking.time, "time", lambda: next(seconds))
    with tracking.tracked(uri, "voc", "voc-mpa/seed0", SETTINGS, tmp_path, "same") as log:
        for iteration in (1, 2, 1, 2, 3):
            log({"loss": 1 / iteration}, iteration)
    assert steps(client, tmp_path) == [1, 2, 3]


def test_a_training_that_starts_anew_closes_the_run_that_was_killed(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    tracker = tracking.Tracker(uri, tmp_path)  # killed by -9: it never ends
    tracker.describe("voc", "voc-mpa/seed0", SETTINGS, "killed")
    tracker.log({"loss": 1.0}, 1)
    assert tracker._write()
    killed = run_of(client, tmp_path).info.run_id
    train(uri, tmp_path, range(1, 3))
    assert run_of(client, tmp_path).info.run_id != killed
    assert steps(client, tmp_path) == [1, 2]
    assert client.get_run(killed).info.status == "KILLED"


def test_a_store_that_is_away_for_a_moment_misses_nothing(
    uri: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = iter([OSError("locked"), OSError("locked")])

    def away(address: str) -> Any:
        if error := next(clients, None):
            raise error
        return MlflowClient(address)

    monkeypatch.setattr(tracking, "_client", away)
    with pytest.warns(UserWarning, match=r"MLflow store .*: locked; trying again"):
        train(uri, tmp_path, range(1, 4))
    assert steps(client, tmp_path) == [1, 2, 3]


def test_of_a_damaged_store_the_reason_is_a_line_and_not_mlflow_s_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "WAITS", ())
    tracking.create_store(address := f"sqlite:///{tmp_path}/mlflow.db", ["voc"], tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        store.execute("ALTER TABLE runs RENAME TO walks")
    with pytest.warns(UserWarning, match=r"MLflow store .*no such table: runs; trying again"):
        train(address, tmp_path, range(1, 4))
    assert "Traceback" not in capsys.readouterr().err


def test_a_write_of_which_only_a_part_arrived_is_completed_without_doubled_steps(
    uri: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([True])
    log_batch = MlflowClient.log_batch

    def half(self: MlflowClient, run_id: str, metrics: Any = (), **given: Any) -> None:
        if metrics and next(failures, False):
            log_batch(self, run_id, metrics[: len(metrics) // 2])
            raise TimeoutError
        log_batch(self, run_id, metrics, **given)

    monkeypatch.setattr(MlflowClient, "log_batch", half)
    with pytest.warns(UserWarning, match="trying again"):
        train(uri, tmp_path, range(1, 9))
    assert steps(client, tmp_path) == list(range(1, 9))


def test_a_run_that_the_store_did_not_take_is_logged_from_its_history_by_an_evaluation(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="the evaluations of its model log the run") as found:
        train("http://127.0.0.1:9", tmp_path, range(1, 6))
    assert len(found) == 1
    for number in range(2):
        tracking.log_evaluation(uri, tmp_path, {"mIoU": 0.5}, prefix=f"refcoco+-val{number}/")
    assert steps(client, tmp_path) == [1, 2, 3, 4, 5]
    run = run_of(client, tmp_path)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "voc-mpa/seed0"
    assert run.data.params["model.tau"] == "10.0"
    assert run.data.metrics["refcocoplus-val0/mIoU"] == run.data.metrics["refcocoplus-val1/mIoU"] == 0.5


def test_a_pretraining_that_the_store_did_not_take_is_logged_by_an_evaluation_of_what_it_started(
    uri: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes, weak = tmp_path / "voc-boxes/seed0", tmp_path / "voc-mpa/seed0"
    for folder in (boxes, weak):
        folder.mkdir(parents=True)
    with pytest.warns(UserWarning, match="trying again"):
        train("http://127.0.0.1:9", boxes, range(1, 6))
    monkeypatch.setitem(SETTINGS, "pretraining", "voc-boxes")
    train(uri, weak, range(1, 4))
    assert not json.loads((boxes / "mlflow_run.json").read_text())["complete"]
    tracking.log_evaluation(uri, weak, {"mIoU": 0.5}, prefix="voc-val/")
    assert steps(client, boxes) == [1, 2, 3, 4, 5] and run_of(client, boxes).info.status == "FINISHED"
    assert "voc-val/mIoU" not in run_of(client, boxes).data.metrics


def test_a_long_parameter_is_cut_and_that_is_said(
    uri: str, client: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(uri, tmp_path, range(1, 3))
    assert run_of(client, tmp_path).data.params["words"] == "w" * 6000
    assert "parameter words cut to 6,000 of 7,000 characters; config.yaml has all" in capsys.readouterr().out


def test_without_a_store_nothing_is_written(tmp_path: Path) -> None:
    with tracking.tracked(None, "voc", "voc-mpa/seed0", SETTINGS, tmp_path, "same") as log:
        log({"loss": 1.0}, 1)
    tracking.log_evaluation(None, tmp_path, {"mIoU": 0.5}, prefix="")
    assert not list(tmp_path.iterdir())
