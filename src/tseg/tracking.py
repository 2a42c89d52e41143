"""MLflow runs. Only this file imports mlflow, and no failure here stops a training.

Without a store, nothing is tracked. If the store is unreachable or mlflow is not installed, one warning says so, and
the run goes on untracked.
"""

import functools
import json
import os
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tseg.files import require_file, write_json

RUN_ID_FILE = "mlflow_run_id"
"""File beside a model: the id of the MLflow run that trained it and that its evaluation joins."""
SECONDS_BETWEEN_WRITES = 10


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

    return MlflowClient(uri)


def _skip_without_store(method: Callable[..., None]) -> Callable[..., None]:
    """Make `method` do nothing without a store; its first failure becomes a warning and ends the tracking."""

    @functools.wraps(method)
    def guarded(self: "Tracker", *args: Any, **kwargs: Any) -> None:
        if self.uri is None:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            warnings.warn(f"MLflow store {self.uri}: {error}; the run goes on untracked", stacklevel=2)
            self.uri = self.run_id = None

    return guarded


class Tracker:
    """One run in the store at `uri`; with None, nothing is tracked."""

    def __init__(self, uri: str | None):
        self.uri = uri
        self.run_id: str | None = None
        self._queued: list[tuple[str, float, int, int]] = []
        self._written = time.monotonic()

    @_skip_without_store
    def start(self, experiment: str, name: str, settings: Mapping[str, Any], file: Path, model_dir: Path) -> None:
        """Open a run with its settings as parameters, the git revision as a tag, and `file` as an artifact.

        The run's id is written to `model_dir`, for `join`.
        """
        # A retraining that cannot be tracked must not be mistaken for the previous run.
        (model_dir / RUN_ID_FILE).unlink(missing_ok=True)
        client = _client(self.uri or "")
        found = client.get_experiment_by_name(experiment)
        experiment_id = found.experiment_id if found else client.create_experiment(experiment)
        tags = {"git_revision": _git_revision()}
        self.run_id = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
        for key, value in _flat(settings).items():
            client.log_param(self.run_id, key, value)
        client.log_artifact(self.run_id, str(file))
        model_dir.mkdir(parents=True, exist_ok=True)
        (model_dir / RUN_ID_FILE).write_text(str(self.run_id))

    def join(self, model_dir: Path) -> None:
        """Continue the run whose id `start` wrote to `model_dir`; without one, nothing is tracked."""
        path = model_dir / RUN_ID_FILE
        self.run_id = path.read_text() if path.exists() else None

    @_skip_without_store
    def log(self, metrics: Mapping[str, float], iteration: int = 0) -> None:
        """Queue the values of `metrics` at `iteration`; the queue is written every few seconds.

        MLflow's metric names allow neither + nor =: `refcoco+` becomes `refcocoplus`, and = becomes a dash.
        """
        if self.run_id is None:
            return
        now = int(time.time() * 1000)
        self._queued += [(_metric_name(key), float(value), now, iteration) for key, value in metrics.items()]
        if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self._write()

    @_skip_without_store
    def end(self, status: str) -> None:
        """Write the queued values and close the run with `status`, FINISHED or FAILED."""
        if self.run_id is None:
            return
        self._write()
        _client(self.uri or "").set_terminated(self.run_id, status)

    def _write(self) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(*values) for values in self._queued]
        for first in range(0, len(metrics), 1000):  # the limit of one request
            _client(self.uri or "").log_batch(self.run_id, metrics[first : first + 1000])
        self._queued.clear()
        self._written = time.monotonic()


def log_metrics(uri: str | None, model_dir: Path, metrics: Mapping[str, float], *, prefix: str) -> None:
    """Add `metrics`, with `prefix` before each name, to the MLflow run that trained the model in `model_dir`."""
    tracker = Tracker(uri)
    tracker.join(model_dir)
    tracker.log({prefix + name: value for name, value in metrics.items()})
    tracker.end("FINISHED")


def _metric_name(name: str) -> str:
    return name.replace("+", "plus").replace("=", "-")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _git_revision() -> str:
    """The commit of the working directory, with -dirty appended if files differ; `unknown` outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
