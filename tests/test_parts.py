"""A command that was killed after any item goes on after it, and writes the bytes of an unbroken one."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tseg import parts
from tseg.evaluation.score import score_masks
from tseg.inference import predict
from tseg.inference.predict_file import predict_file
from tseg.inference.pseudo_labels import pseudo_label_file
from tseg.inference.refine_file import refine_file
from tseg.model.tseg import TSEG, save_model
from tseg.parts import Parts, tables_of

from .provenances import model_provenance, write_records

Commands = dict[str, Callable[[Path], Any]]
OF_MASKS: dict[str, Any] = {"background": 0.2, "exclusive_activations": True, "threshold": "halfway", "crf": None}
SCHEMA = pa.schema([("number", pa.int64())])


class Killed(BaseException):
    """Stands for the end of a process."""


@pytest.fixture
def commands(model: TSEG, architecture: dict[str, Any], records_path: Path, tmp_path: Path) -> Commands:
    """Each command that goes on from parts, with the files that it reads."""
    trained, predictions, masks = (tmp_path / name for name in ("model.safetensors", "made.parquet", "masks.parquet"))
    save_model(trained, model, architecture, model_provenance())
    views: dict[str, Any] = {"resolution": 40, "scales": [1.0], "flip": True, "window": None}
    of_labels = {"confidence": 0.5, "crf_background": None}
    classes = {name: [name] for name in ("red square", "green square", "blue square")}
    rows = [row for row in pq.read_table(records_path).to_pylist() if row["expression"] in classes]
    write_records(tmp_path / "classes.parquet", rows, classes=list(classes))
    predict = partial(predict_file, trained, device=torch.device("cpu"), **views)
    predict(records_path, predictions, labels=None)
    predict(tmp_path / "classes.parquet", tmp_path / "words.parquet", labels=classes)
    refine = partial(refine_file, **OF_MASKS, **of_labels)
    refine(tmp_path / "words.parquet", tmp_path / "classes.parquet", masks)
    pseudo_label = partial(pseudo_label_file, predictions, records_path, **OF_MASKS, ignore_band=0.1)
    evaluate = partial(score_masks, masks, tmp_path / "classes.parquet", num_bootstrap=5)
    return {
        "predict": partial(predict, records_path, labels=None),
        "refine": partial(refine, predictions, records_path),
        "refine labels": partial(refine, tmp_path / "words.parquet", tmp_path / "classes.parquet"),
        "pseudo_label": pseudo_label,
        "evaluate labels": lambda output: evaluate(output=output, summary=tmp_path / "summary.json"),
    }


@pytest.mark.parametrize("command", ["predict", "refine", "pseudo_label", "refine labels", "evaluate labels"])
def test_a_killed_command_goes_on_after_any_item(
    commands: Commands, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, whole, output = commands[command], tmp_path / "whole.parquet", tmp_path / "broken.parquet"
    make(whole)
    made = 0

    def dying(items: Any, rows_of: Callable[[Any], Any], *arguments: Any, **options: Any) -> Iterator[pa.Table]:
        def rows_or_death(waiting: Iterator[Any]) -> Iterator[list[Any]]:
            nonlocal made
            for rows in rows_of(waiting):
                if made == num_lived:
                    raise Killed
                made += 1
                yield list(rows)

        return tables_of(items, rows_or_death, *arguments, **options)

    monkeypatch.setattr(parts, "SECONDS", 0)  # a part for each item
    monkeypatch.setattr(predict, "IMAGES_AT_ONCE", 2)
    monkeypatch.setattr("tseg.records.tables_of", dying)
    num_killed = num_lived = 0
    while True:
        made, num_lived = 0, num_lived % 3 + 1
        try:
            make(output)
            break
        except Killed:
            num_killed += 1
            assert not output.exists()
            found = [path.name.split("-") for path in output.with_suffix(".parts").glob("*.parquet")]
            assert all(int(stop) % (2 if command == "predict" else 1) == 0 for _, _, stop, _ in found)
    assert num_killed >= 2
    assert output.read_bytes() == whole.read_bytes()
    assert not output.with_suffix(".parts").exists()


def rows_of(number: int) -> list[dict[str, int]]:
    return [{"number": number}] * number


def numbers(kept: Parts, made: Callable[[int], list[dict[str, int]]] = rows_of) -> list[int]:
    tables = tables_of(range(5), partial(map, made), SCHEMA, what="count", unit="numbers", total=5, parts=kept)
    return pa.concat_tables(tables)["number"].to_pylist()


def test_parts_of_other_files_or_options_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SECONDS", 0)
    source, other = tmp_path / "a.csv", tmp_path / "out.parts" / "mine.parquet"
    source.write_text("1")

    def of(**options: int) -> Parts:
        return Parts(tmp_path / "out.parquet", "tseg.parts.tables_of", [source], options)

    expected = numbers(of(alpha=1))
    other.write_text("not a part")
    counted: list[int] = []
    assert numbers(of(alpha=1), counted.append) == expected and not counted  # all items are done
    assert numbers(of(alpha=2)) == expected
    assert len(list(other.parent.glob("*.parquet"))) == 5 + 1  # those of alpha=1 are removed
    source.write_text("2")
    with pytest.raises(TypeError):  # made again
        numbers(of(alpha=2), counted.append)
    of(alpha=2).remove()
    assert list(other.parent.iterdir()) == [other]


def test_a_damaged_part_is_named_and_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SECONDS", 0)
    kept = Parts(tmp_path / "out.parquet", "tseg.parts.tables_of", [], {})
    expected = numbers(kept)
    third = sorted(kept.folder.iterdir())[2]
    intact = third.read_bytes()
    for position in range(0, len(intact), 40):
        third.write_bytes(intact[:position] + bytes([intact[position] ^ 255]) + intact[position + 1 :])
        made: list[int] = []

        def counted(number: int, made: list[int] = made) -> list[dict[str, int]]:
            made.append(number)
            return rows_of(number)

        with pytest.warns(UserWarning, match=f"{third.name} is damaged"):
            assert numbers(kept, counted) == expected
        assert made[0] == 2, position
        assert not third.exists() or third.read_bytes() == intact


@pytest.mark.parametrize(("batch_size", "at_once"), [(1, 1), (1, 7), (4, 1), (4, 50)])
def test_rows_are_passed_on_before_they_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch, batch_size: int, at_once: int
) -> None:
    monkeypatch.setattr(parts, "BYTES_HELD", 1)
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", at_once)
    options: dict[str, Any] = {"what": "count", "unit": "numbers", "total": 20, "batch_size": batch_size}
    tables = list(tables_of(range(20), partial(map, lambda number: [{"number": number}]), SCHEMA, **options))
    assert pa.concat_tables(tables)["number"].to_pylist() == list(range(20))
    assert all(len(table) % batch_size == 0 for table in tables)
    assert max(map(len, tables)) <= max(at_once, batch_size) + batch_size - 1
    assert (len(tables) > 2) == (at_once < 20)
