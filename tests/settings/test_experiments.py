"""The tables and figures of config/experiments.yaml, and the cells of a grid."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tseg.settings.experiments import Cell, Experiments, LabelSets, figure_cells, labels_of, runs_of, table_cells
from tseg.settings.runs import Evaluation
from tseg.settings.schema import Settings
from tseg.settings.validation import parse

CONFIG = Path(__file__).parents[2] / "config"


def read(schema: Any, name: str) -> Any:
    return parse(schema, yaml.safe_load((CONFIG / name).read_text(encoding="utf-8")), name)


SETTINGS = read(Settings, "config.yaml")
METHODS = yaml.safe_load((CONFIG / "experiments.yaml").read_text(encoding="utf-8"))["methods"]
LABEL_SETS = read(LabelSets, "label_sets.yaml")
COLUMNS = {"PhraseCut": {"dataset": "phrasecut"}}


def grid(
    rows: dict[str, Any], columns: dict[str, Any] = COLUMNS, *, settings: Settings = SETTINGS, **table: Any
) -> list[Cell]:
    """The cells of one table with three of the repository's methods."""
    methods = {name: METHODS[name] for name in ("GAP", "SPA", "TSEG")}
    described = {"number": "0", "title": "", "rows": rows, "columns": columns} | table
    experiments = {"methods": methods, "tables": {"own": described}, "figures": {}}
    return table_cells(parse(Experiments, experiments, "own.yaml"), settings, LABEL_SETS)["own"]


def test_rows_can_vary_the_loss_of_weak_training() -> None:
    rows = {
        "mean": {"method": "TSEG"},
        "sum": {"method": "TSEG", "settings": {"training.weak.loss": "sum"}},
        "apart": {"method": "TSEG", "settings": {"training.weak.same_image_weight": 0.1}},
    }
    assert [cell.run.run for cell in grid(rows)] == [
        "phrasecut-mpa",
        "phrasecut-mpa+loss=sum",
        "phrasecut-mpa+same_image_weight=0.1",
    ]


@pytest.mark.parametrize("name", ["config.yaml", "paper.yaml"])
def test_both_scales_describe_every_table_and_figure_of_the_paper(name: str) -> None:
    experiments, settings = read(Experiments, "experiments.yaml"), read(Settings, name)
    tables, figures = (cells(experiments, settings, LABEL_SETS) for cells in (table_cells, figure_cells))
    assert set(tables) >= {"table1", "table2a", "table2b", "table2c", "table2d", "table2e", "table3"}
    assert set(figures) == {f"figure{number}" for number in range(3, 10)}
    assert len(runs_of(cell for cells in (*tables.values(), *figures.values()) for cell in cells)) == 56


def test_a_split_of_a_cell_replaces_that_of_its_data_set_and_shares_its_run() -> None:
    columns = {"plain": {"dataset": "phrasecut"}, "test": {"dataset": "phrasecut", "split": "test"}}
    plain, test = grid({"TSEG": {"method": "TSEG"}}, columns)
    assert (plain.evaluation.name, test.evaluation.name) == ("phrasecut-val", "phrasecut-test")
    assert plain.run == test.run
    with pytest.raises(ValueError, match=r"own\.yaml: tables\.own\.rows\.TSEG\.split"):
        grid({"TSEG": {"method": "TSEG", "split": "../val"}})


@pytest.mark.parametrize("name", ["config.yaml", "paper.yaml"])
def test_the_22_cells_of_table_2_are_18_runs_and_one_pretraining(name: str) -> None:
    tables = table_cells(read(Experiments, "experiments.yaml"), read(Settings, name), LABEL_SETS)
    cells = [cell for table, of_table in tables.items() if table.startswith("table2") for cell in of_table]
    assert len(cells) == 22
    assert len({cell.run.run for cell in cells}) == 18
    assert len(runs_of(cells)) == 19
    shared = {"config.yaml": 5, "paper.yaml": 4}  # 2a has the dimension 384, at the paper's scale not the default
    assert sum(cell.run.run == "phrasecut-mpa" for cell in cells) == shared[name]


def test_table_1_has_the_papers_eight_rows() -> None:
    cells = table_cells(read(Experiments, "experiments.yaml"), SETTINGS, LABEL_SETS)["table1"]
    what = {
        (cell.run.pooling.name, cell.run.model.image_encoder.name, hasattr(cell.run.model.text_encoder, "classes"))
        for cell in cells
    }
    vit, resnet = "vit_tiny_patch16_224", "wide_resnet38"
    assert what == {
        *(("gap", vit, False), ("gap", resnet, False), ("gap", resnet, True)),
        *(("gmp", vit, False), ("gmp", resnet, False)),
        *(("spa", vit, False), ("spa", resnet, False), ("spa", resnet, True)),
    }
    assert all(cell.refinement.name == "crf" and cell.evaluation.multiscale for cell in cells)


def test_a_label_with_method_stands_for_every_method_not_excluded() -> None:
    rows = {
        "{method} narrow": {"settings": {"model.embed_dim": 8}, "without": ["TSEG"]},
        "{method}": {},
        "TSEG (CRF)": {"method": "TSEG", "crf": True},
    }
    cells = grid(rows)
    assert [cell.row for cell in cells] == ["GAP narrow", "GAP", "SPA narrow", "SPA", "TSEG", "TSEG (CRF)"]
    assert [cell.run.run for cell in cells][:2] == ["phrasecut-gap+embed_dim=8", "phrasecut-gap"]
    assert [cell.row for cell in grid({"{method}": {"methods": ["SPA"]}})] == ["SPA"]


def test_tables_of_the_paper_are_cut_at_the_papers_threshold() -> None:
    """Whatever the configuration calibrates."""
    inference = SETTINGS.inference.model_copy(update={"threshold": "otsu"})
    calibrating = SETTINGS.model_copy(update={"inference": inference})
    tables = table_cells(read(Experiments, "experiments.yaml"), calibrating, LABEL_SETS)
    cells = [cell for name, of_table in tables.items() if name.startswith("table") for cell in of_table]
    assert {cell.refinement.threshold for cell in cells} == {"fixed"}


def test_columns_may_differ_in_threshold_and_refinement_and_share_a_run() -> None:
    inference = SETTINGS.inference.model_copy(update={"threshold": "otsu"})
    columns = {
        "fixed": {},
        "CRF": {"crf": True},
        "PAMR": {"crf": "pamr"},
        "halfway": {"threshold": "halfway"},
        "halfway, CRF": {"threshold": "halfway", "crf": True},
        "calibrated": {"threshold": "calibrated"},
        "calibrated, IRN's CRF": {"threshold": "calibrated", "crf": "irn"},
        "oracle": {"threshold": "oracle", "crf": False},
    }
    cells = grid(
        {"TSEG": {"method": "TSEG"}},
        columns,
        cells={"dataset": "phrasecut"},
        settings=SETTINGS.model_copy(update={"inference": inference}),
    )
    names = ["plain", "crf", "pamr", "halfway", "halfway+crf", "otsu", "otsu+irn", "oracle"]
    assert [cell.refinement.name for cell in cells] == names
    assert {cell.run.run for cell in cells} == {"phrasecut-mpa"}


def test_the_oracle_is_not_for_label_maps() -> None:
    columns = {"oracle": {"dataset": "phrasecut", "evaluate": "voc", "threshold": "oracle"}}
    with pytest.raises(ValueError, match=r"own: TSEG, oracle: threshold: the oracle cuts masks of records"):
        grid({"TSEG": {"method": "TSEG"}}, columns)


def test_a_label_with_class_stands_for_every_class_evaluated_on() -> None:
    cells = grid({"{class}": {}}, {"TSEG": {"method": "TSEG"}}, cells={"dataset": "phrasecut", "evaluate": "voc"})
    assert [cell.metric for cell in cells] == [f"classes.{name}" for name in SETTINGS.datasets["voc"].classes]
    assert {cell.run.run for cell in cells} == {"phrasecut-mpa"}
    assert {cell.evaluation.name for cell in cells} == {"voc-val"}


def test_a_cell_merges_the_options_and_settings_of_its_row_and_of_its_column() -> None:
    columns = {"p": {"dataset": "phrasecut", "options": {"size_power": 1}, "settings": {"model.tau": 5}}}
    (cell,) = grid(
        {"l": {"method": "TSEG", "options": {"size_lambda": 0.5}, "settings": {"model.embed_dim": 8}}}, columns
    )
    assert cell.run.pooling is not None
    assert cell.run.pooling.options == {"epsilon": 1.0, "size_lambda": 0.5, "size_power": 1.0}
    assert cell.run.run == "phrasecut-mpa+embed_dim=8+tau=5+size_lambda=0.5+size_power=1"


def test_options_of_a_row_of_methods_must_suit_each_of_them() -> None:
    suited = {"options": {"size_power": 1}, "methods": ["SPA", "TSEG"]}
    assert [cell.run.run for cell in grid({"{method}": suited})] == [
        f"phrasecut-{pooling}+size_power=1" for pooling in ("spa", "mpa")
    ]
    with pytest.raises(ValueError, match=r"own: GAP, PhraseCut: options of the pooling gap: unknown key size_power"):
        grid({"{method}": {"options": {"size_power": 1}}})


@pytest.mark.parametrize(
    ("method", "complaint"),
    [
        ({"pooling": "mp"}, "methods.own.pooling: tseg.model.pooling has no pooling 'mp'; did you mean mpa?"),
        ({"poling": "mpa"}, "unknown key methods.own.poling; did you mean pooling?"),
        (
            {"pooling": "mpa", "options": {"size_lambda": -1}},
            "methods.own.options: options of the pooling mpa: size_lambda: Input should be greater than or equal to 0",
        ),
        (
            {"pooling": "gap", "options": {"epsilon": 1}},
            "methods.own.options: options of the pooling gap: unknown key epsilon",
        ),
        ({"pooling": "spa", "options": METHODS["SPA"]["options"] | {"epsilonn": 1}}, "did you mean epsilon?"),
        (
            {"pooling": "spa", "options": METHODS["SPA"]["options"] | {"epsilon": -1}},
            "pooling spa: epsilon: Input should",
        ),
    ],
)
def test_a_method_whose_options_do_not_fit_its_pooling_is_refused(method: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        parse(Experiments, {"methods": {"own": method}, "tables": {}, "figures": {}}, "own.yaml")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"method": "SAP"}, "tables.own: row, PhraseCut: there is no method 'SAP'; did you mean SPA?"),
        ({}, "tables.own: row, PhraseCut: the method is missing; add it"),
        ({"method": "SPA", "evaluate": "vocc"}, "the configuration has no data set 'vocc'; did you mean voc?"),
        ({"method": "SPA", "labels": "words"}, "there is no label set 'words'"),
        ({"method": "SPA", "labels": "better_words"}, "the label set better_words has none of phrasecut's classes"),
        ({"supervision": "full", "evaluate": "voc"}, "full supervision does not score classes"),
        (
            {"method": "SPA", "dataset": "voc", "evaluate": "phrasecut", "settings": {"model.text_encoder": "classes"}},
            "class encoding knows only its training classes",
        ),
        ({"method": "SPA", "without": ["GAP"]}, "methods and without need {method} in the label"),
        ({"method": "SPA", "settings": {"model.embed": 3}}, "the configuration has no key model.embed"),
    ],
)
def test_a_mistake_names_the_cell_and_the_nearest_word(row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        grid({"row": row})


def test_two_different_runs_of_one_name_are_refused() -> None:
    rows = {
        "weak": {"method": "TSEG", "settings": {"model.embed_dim": 32}},
        "other": {"method": "TSEG", "settings": {"image_encoders.vit.options.embed_dim": 32}},
    }
    with pytest.raises(ValueError, match=r"two different runs are called phrasecut-mpa\+embed_dim=32"):
        runs_of(grid(rows))


def test_two_methods_of_one_pooling_with_different_options_are_two_runs() -> None:
    methods = {"TSEG": {"pooling": "mpa"}, "Plain": {"pooling": "mpa", "options": {"size_power": 0}}}
    table = {"number": "0", "title": "", "rows": {"{method}": {}}, "columns": {"PhraseCut": {"dataset": "phrasecut"}}}
    experiments = parse(Experiments, {"methods": methods, "tables": {"own": table}, "figures": {}}, "own.yaml")
    runs = runs_of(table_cells(experiments, SETTINGS, LABEL_SETS)["own"])
    assert list(runs) == ["phrasecut-mpa", "phrasecut-mpa+size_power=0"]


def test_a_class_without_other_words_is_its_own_word() -> None:
    labels = labels_of(SETTINGS, LABEL_SETS, Evaluation("voc", "val", labels="better_words"))
    assert labels is not None
    assert labels["cool thing"] == ["cyan thing", "blue thing"]
    assert labels["red thing"] == ["red thing"]
    assert labels_of(SETTINGS, LABEL_SETS, Evaluation("phrasecut", "val")) is None


@pytest.mark.parametrize(
    ("label", "cells", "complaint"),
    [
        ("{class}", {"dataset": "phrasecut"}, "{class} needs a data set with classes"),
        ("{class}", {"dataset": "vocc"}, "{class} needs a data set with classes"),
        ("{method}, {class}", {"dataset": "voc"}, "a label cannot contain both {method} and {class}"),
    ],
)
def test_a_pattern_that_stands_for_nothing_is_refused(label: str, cells: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        grid({label: {}}, {"TSEG": {"method": "TSEG"}}, cells=cells)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"red thing": ["pink thing"]}, "has an empty or repeated expression, 'pink thing'"),
        ({"red thing": [" "]}, "has an empty or repeated expression, ' '"),
        ({"person": ["man"]}, "has none of voc's classes"),
    ],
)
def test_words_that_do_not_distinguish_classes_are_refused(words: dict[str, list[str]], complaint: str) -> None:
    table = {"number": "0", "title": "", "columns": {"own": {"labels": "own"}}, "rows": {"mIoU": {}}}
    described = {"dataset": "phrasecut", "evaluate": "voc", "method": "TSEG"}
    experiments = {"methods": METHODS, "tables": {"own": table | {"cells": described}}}
    with pytest.raises(ValueError, match=re.escape(complaint)):
        table_cells(parse(Experiments, experiments | {"figures": {}}, "own.yaml"), SETTINGS, {"own": words})


@pytest.mark.parametrize(
    ("figure", "complaint"),
    [
        ({"kind": "masks", "columns": {"a": {"evaluate": "voc"}}}, "kind classes is for data sets with classes"),
        ({"kind": "classes", "columns": {"a": {}}}, "kind classes is for data sets with classes"),
        ({"kind": "expressions", "columns": {"a": {}, "b": {"crf": True}}}, "shows one run, not 2"),
        ({"kind": "masks", "columns": {}}, "its columns have 0 data sets"),
        ({"kind": "masks", "columns": {"a": {}, "b": {"dataset": "refcoco"}}}, "its columns have 2 data sets"),
        ({"kind": "masks", "columns": {"a": {}, "b": {"split": "test"}}}, "its columns have 2 splits"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_refused_before_any_training(figure: dict[str, Any], complaint: str) -> None:
    described = {"title": "", "caption": "", "cells": {"dataset": "phrasecut", "method": "TSEG"}} | figure
    experiments = {"methods": METHODS, "tables": {}, "figures": {"own": described}}
    with pytest.raises(ValueError, match=re.escape(complaint)):
        figure_cells(parse(Experiments, experiments, "own.yaml"), SETTINGS, LABEL_SETS)


def test_every_published_number_of_the_paper_has_a_cell() -> None:
    experiments = read(Experiments, "experiments.yaml")
    tables = table_cells(experiments, read(Settings, "paper.yaml"), LABEL_SETS)
    cells = {(experiments.tables[name].number, cell.row, cell.column) for name in tables for cell in tables[name]}
    published = pd.read_csv(CONFIG / "published.csv", dtype=str)
    numbered = set(published[["table", "row", "column"]].itertuples(index=False, name=None))
    elsewhere = {cell for cell in numbered - cells if not {"MDETR", "VLT", "GroupViT"} & set(cell)}
    assert {row for _, row, _ in elsewhere} == {"CLIP-as-RNN", "GL-CLIP"}
