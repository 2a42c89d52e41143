"""MLflow runs. Only this file imports mlflow, and no failure here stops a training.

Without a store, nothing is tracked. What a store does not take now is offered again later: by the training itself, and
after it by each evaluation of its model. One warning says so.
"""

import csv
import json
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tseg.files import require_file, write_json
from tseg.lineage import git_revision
from tseg.locks import exclusive

RUN_FILE = "mlflow_run.json"
"""File beside a model: its MLflow run, which its evaluations join."""
SECONDS_BETWEEN_WRITES = 10
SECONDS_AFTER_FAILURE = 60
WAITS = (1, 2, 4, 8)
"""Seconds between attempts at the end of a process. An SQLite store that is locked takes 20 seconds more each."""
MAX_VALUE, MAX_NAME = 6000, 250
"""Characters that a store keeps of a parameter, and of a name."""
RUNNING, FINISHED, FAILED, KILLED = "RUNNING", "FINISHED", "FAILED", "KILLED"


def set_up_store(uri: str | None, experiments: list[str], note: Path) -> None:
    """Create the store at `uri`, unless it is None, and write its address to the JSON file `note`.

    A local store keeps its files in `mlflow_artifacts` beside `note`. A failure is a warning; each run tries again.
    """
    if uri:
        try:
            create_store(uri, experiments, note.parent / "mlflow_artifacts")
        except Exception as error:
            warnings.warn(f"MLflow store {uri}: {error}; runs will try again", stacklevel=2)
    write_json(note, {"uri": uri})


def store_address(note: Path | None) -> str | None:
    """Read the address of the store that `set_up_store` wrote to `note`; None without a note or a store."""
    if note is None:
        return None
    return json.loads(require_file(note, "give the path of a file that exists").read_text(encoding="utf-8"))["uri"]


def create_store(uri: str, experiments: list[str], artifacts: Path) -> None:
    """Create the store and any of the `experiments` that is missing; a local store keeps its files under `artifacts`.

    Call this once before any run starts: processes that open an SQLite file without tables at the same time all fail.
    """
    client = _client(uri)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    for name in experiments:
        if client.get_experiment_by_name(name) is None:
            location = (artifacts / name).absolute().as_uri() if uri.startswith("sqlite:") else None
            client.create_experiment(name, location)


def _client(uri: str) -> Any:
    """A client of the store that gives up within seconds if the server does not answer."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback of what the caller warns of
    return MlflowClient(uri)


class Tracker:
    """The MLflow run of the model in `model_dir`, in the store at `uri`; with None, nothing is tracked."""

    def __init__(self, uri: str | None, model_dir: Path):
        self.uri, self.path = uri, model_dir / RUN_FILE
        self.note: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}
        self._queue: dict[tuple[str, int], tuple[float, int]] = {}  # name, iteration to value, milliseconds
        self._logged: set[int] | None = None  # iterations in the store, once they are known
        self._status = RUNNING
        self._next = time.monotonic() + SECONDS_BETWEEN_WRITES
        self._warned = False

    def describe(self, experiment: str, name: str, settings: Mapping[str, Any], training: str) -> None:
        """Begin a new run, with its settings as parameters and the git revision as a tag, unless it is of `training`.

        `training` identifies what is trained: a training that was interrupted goes on in its run.
        """
        if self.uri is None or self.note.get("training") == training:
            return
        params = {key: str(value) for key, value in _flat(settings).items()}
        for key, value in params.items():
            if len(value) > MAX_VALUE:
                print(f"MLflow: parameter {key} cut to {MAX_VALUE:,} of {len(value):,} characters; config.yaml has all")
        self.note = {
            "training": training,
            "experiment": experiment,
            "name": name[:MAX_NAME],
            "params": {key[:MAX_NAME]: value[:MAX_VALUE] for key, value in params.items()},
            "tags": {"git_revision": git_revision()},
            "run_id": None,
            "described": False,
            "complete": False,
            "replaced": None if self.note.get("complete") else self.note.get("run_id"),
        }
        self._save()

    def log(self, metrics: Mapping[str, float], iteration: int = 0) -> None:
        """Queue the values of `metrics` at `iteration`; the queue is written every few seconds.

        Of an iteration that the store has, nothing is written again. MLflow's metric names allow neither + nor =:
        `refcoco+` becomes `refcocoplus`, = becomes a dash, and what else it refuses, _.
        """
        now = int(time.time() * 1000)
        self._queue |= {(_metric_name(key), iteration): (float(value), now) for key, value in metrics.items()}
        if time.monotonic() > self._next:
            self._next = time.monotonic() + (SECONDS_BETWEEN_WRITES if self._write() else SECONDS_AFTER_FAILURE)

    def end(self, status: str) -> None:
        """Write the queue, with a few attempts, and close the run with `status`, FINISHED, FAILED or KILLED."""
        self._status = status
        for seconds in (*WAITS, None):
            if self._write() or seconds is None:
                return
            time.sleep(seconds)

    def _write(self) -> bool:
        """Offer the queue and the status to the store; return whether it took them."""
        if self.uri is None or not self.note:
            return True
        try:
            self._offer(_client(self.uri))
        except Exception as error:
            if not self._warned:
                later = "trying again; at the latest, the evaluations of its model log the run"
                cause = getattr(error.__cause__, "orig", error)  # SQLAlchemy adds its statement
                reason = str(cause).partition("\n")[0]
                warnings.warn(f"MLflow store {self.uri}: {reason}; {later}", stacklevel=2)
            self._warned = True
            self._logged = None  # a part may have been taken
            return False
        return True

    def _offer(self, client: Any) -> None:
        from mlflow.entities import Metric

        self._open(client)
        run_id = self.note["run_id"]
        if self._logged is None:
            self._logged = {point.step for point in client.get_metric_history(run_id, "loss")}
            if self._status == RUNNING:
                client.update_run(run_id, RUNNING)
        new = [
            (name, *value, iteration)
            for (name, iteration), value in self._queue.items()
            if iteration == 0 or iteration not in self._logged
        ]
        for first in range(0, len(new), 1000):  # the limit of one request
            client.log_batch(run_id, [Metric(*values) for values in new[first : first + 1000]])
        self._logged |= {iteration for *_, iteration in new}
        self._queue.clear()
        if self._status != RUNNING:
            client.set_terminated(run_id, self._status)
            self.note["complete"] = self._status == FINISHED
            self._save()

    def _open(self, client: Any) -> None:
        """Create the run with its parameters, if that is not done, and close the unfinished run that it replaces."""
        from mlflow.entities import Param

        if self.note["run_id"] is None:
            if self.note["replaced"]:
                client.set_terminated(self.note["replaced"], KILLED)
            found = client.get_experiment_by_name(self.note["experiment"])
            experiment_id = found.experiment_id if found else client.create_experiment(self.note["experiment"])
            run = client.create_run(experiment_id, run_name=self.note["name"], tags=self.note["tags"])
            self.note |= {"run_id": run.info.run_id, "replaced": None}
            self._save()
        if not self.note["described"]:
            params = [Param(key, value) for key, value in self.note["params"].items()]
            for first in range(0, len(params), 100):  # the limit of one request
                client.log_batch(self.note["run_id"], params=params[first : first + 100])
            self.note["described"] = True
            self._save()

    def _save(self) -> None:
        write_json(self.path, self.note)


@contextmanager
def tracked(
    uri: str | None, experiment: str, name: str, settings: Mapping[str, Any], model_dir: Path, training: str
) -> Generator[Callable[[Mapping[str, float], int], None]]:
    """Yield a function that logs metrics at an iteration to the run of a training, and close the run at the end.

    For `training` see `Tracker.describe`.
    """
    tracker = Tracker(uri, model_dir)
    tracker.describe(experiment, name, settings, training)
    try:
        yield tracker.log
    except (SystemExit, KeyboardInterrupt):
        tracker.end(KILLED)
        raise
    except BaseException:
        tracker.end(FAILED)
        raise
    tracker.end(FINISHED)


def log_evaluation(uri: str | None, model_dir: Path, metrics: Mapping[str, float], *, prefix: str) -> None:
    """Add `metrics`, with `prefix` before each name, to the MLflow run that trained the model in `model_dir`.

    A run that the store did not take during its training is first logged from the model's history.csv; after it, that
    of its pretraining, which has no evaluation of its own.
    """
    if uri is None:
        return
    with exclusive(model_dir / ".mlflow.lock", "logs this model to MLflow", wait=True):
        tracker = Tracker(uri, model_dir)
        history = model_dir / "history.csv"
        if tracker.note and not tracker.note["complete"] and history.exists():
            with history.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    iteration = int(row.pop("iteration"))
                    tracker.log({key: float(value) for key, value in row.items()}, iteration)
        tracker.log({prefix + name: value for name, value in metrics.items()})
        tracker.end(FINISHED)
    model_dir = model_dir.absolute()
    pretraining = model_dir.parent.parent / tracker.note.get("params", {}).get("pretraining", "None") / model_dir.name
    if not Tracker(uri, pretraining).note.get("complete", True):
        log_evaluation(uri, pretraining, {}, prefix="")


def _metric_name(name: str) -> str:
    return re.sub(r"[^/\w.\- :]", "_", name.replace("+", "plus").replace("=", "-"))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
