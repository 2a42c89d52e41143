"""The note of the MLflow store."""

import json
from pathlib import Path

import pytest

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
