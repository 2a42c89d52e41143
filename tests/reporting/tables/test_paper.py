"""Tables contain the metrics of evaluations and name the data; they are written completely or not at all."""

import json
import math
import statistics
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tseg.evaluation.score import Summary
from tseg.inference.masks import comparison
from tseg.reporting.tables.paper import write_table
from tseg.settings.layout import TableLayout
from tseg.settings.validation import parse

from ...provenances import masks_provenance, model_provenance, predictions_provenance, records_provenance

# mIoU by row and column, of seeds 0 and 1.
SCORES = {
    ("TSEG", "PhraseCut"): (0.20, 0.30),
    ("TSEG", "RefCOCO+"): (0.5, 0.25),
    ("TSEG (CRF)", "PhraseCut"): (0.3333, 0.3333),
    ("TSEG (CRF)", "RefCOCO+"): (0.0, 0.001),
}
PUBLISHED = """source,table,row,column,metric,value,access,note
Strudel et al. 2022,3,TSEG (CRF),PhraseCut,mIoU,30.1,none,
Strudel et al. 2022,3,TSEG,PhraseCut,mIoU,28.77,none,by lamplight; at sea
Strudel et al. 2022,3,MDETR,RefCOCO+,mIoU,53.1,boxes; masks,at sea
Strudel et al. 2022,3,TSEG,GroupViT,mIoU,51.20,none,
Strudel et al. 2022,4,TSEG,RefCOCO+,mIoU,99.99,none,another table
A peer,3,CLIP,RefCOCO+,mIoU,9.5,400M pairs,
"""
ROOT = Path(__file__).parents[3]


def write_summary(folder: Path, name: str, seed: int, score: float, **data: Any) -> Path:
    """A summary of the run `<name>-mpa`; `data` may contain trained_on and evaluated_on."""
    usual: dict[str, Any] = {"dataset": name, "sources": ["shapes-coco"]}
    trained_on = records_provenance(**usual | data.get("trained_on", {}))
    evaluated_on = records_provenance(**usual | {"split": "val"} | data.get("evaluated_on", {}))
    model = model_provenance(run=f"{name}-mpa", seed=seed, trained_on=trained_on)
    masks = masks_provenance(predictions=predictions_provenance(model=model, evaluated_on=evaluated_on))
    metrics = {"mIoU": score, "mIoU_low": score / 2}
    summary = Summary(masks=masks, metrics=metrics, num_records=512, num_images=99, num_without_mask=0, subsets={})
    path = folder / f"{name}-{seed}.json"
    path.write_text(summary.model_dump_json())
    return path


@pytest.fixture
def layout(tmp_path: Path) -> dict[str, Any]:
    return make_layout(tmp_path)


def make_layout(folder: Path, seeds: tuple[int, ...] = (0, 1), **facts: Any) -> dict[str, Any]:
    cells = []
    for (row, column), scores in SCORES.items():
        paths = [write_summary(folder, f"{row}-{column}", seed, scores[seed], **facts) for seed in seeds]
        cells.append({"row": row, "column": column, "metric": "mIoU", "summaries": [str(path) for path in paths]})
    labels = {"rows": ["TSEG", "TSEG (CRF)"], "columns": ["PhraseCut", "RefCOCO+"]}
    texts = {
        "table": "table3",
        "number": "3",
        "title": "Methods",
        "corner": "Method",
        "note": "Read with care.",
        "best": "column",
    }
    return texts | labels | {"cells": cells}


def tabulate(layout: dict[str, Any], folder: Path, results: str = PUBLISHED) -> Path:
    published = folder / "published.csv"
    published.write_text(results)
    output = folder / "results" / "table3.csv"
    write_table(parse(TableLayout, layout, "layout"), output, published=published)
    return output


def edit(path: str, **fields: Any) -> None:
    """Change fields of a summary; those of its model and predictions too."""
    summary = json.loads(Path(path).read_text())
    predictions = summary["masks"]["predictions"]
    for name, value in fields.items():
        owners = summary, summary["masks"], predictions, predictions["model"]
        owner = next(owner for owner in owners if name in owner)
        owner[name] = value
    Path(path).write_text(json.dumps(summary))


def test_cells_are_means_and_sample_deviations_over_seeds_in_percent(layout: dict[str, Any], tmp_path: Path) -> None:
    output = tabulate(layout, tmp_path)
    table = pd.read_csv(output, comment="#", index_col=0)
    assert list(table.columns) == ["PhraseCut", "RefCOCO+", "PhraseCut std", "RefCOCO+ std"]
    for (row, column), scores in SCORES.items():
        mean, deviation = (100 * measure(scores) for measure in (statistics.mean, statistics.stdev))
        assert table.loc[row, column] == round(mean, 2)
        assert table.loc[row, f"{column} std"] == round(deviation, 2)
    assert "| TSEG | 25.00 ± 7.07 | **37.50 ± 17.68** |" in output.with_suffix(".md").read_text()
    assert r"TSEG & 25.00 $\pm$ 7.07 & \textbf{37.50 $\pm$ 17.68} \\" in output.with_suffix(".tex").read_text()
    metrics = json.loads(output.with_suffix(".json").read_text())
    assert metrics["mean"]["TSEG"] == {"PhraseCut": 25.0, "RefCOCO+": 37.5}
    assert metrics["std"]["TSEG"] == {"PhraseCut": 7.07, "RefCOCO+": 17.68}


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    output = tabulate(make_layout(tmp_path, seeds=(0,)), tmp_path)
    lines = output.read_text().splitlines()
    assert lines[1:] == ["Method,PhraseCut,RefCOCO+", "TSEG,20.00,50.00", "TSEG (CRF),33.33,0.00"]
    assert "±" not in output.with_suffix(".md").read_text()
    assert "std" not in json.loads(output.with_suffix(".json").read_text())


def test_every_file_states_that_the_data_are_shapes(layout: dict[str, Any], tmp_path: Path) -> None:
    output = tabulate(layout, tmp_path)
    written = sorted(path.name for path in output.parent.iterdir())
    assert written == ["table3.csv", "table3.html", "table3.json", "table3.md", "table3.tex", "table3_detail.csv"]
    warning = (
        "The models were trained and evaluated on the embedded data set shapes:"
        " these numbers are not those of the paper."
    )
    for path in output.parent.iterdir():
        assert warning in path.read_text(), path.name
    comment = output.read_text().splitlines()[0]
    assert comment.startswith(f"# {warning}")
    assert not set(comment) & set(",'\"")


def test_other_data_are_named_without_the_warning(tmp_path: Path) -> None:
    data = {"dataset": "phrasecut", "split": "val", "sources": ["visual-genome"]}
    layout = make_layout(tmp_path, trained_on=data | {"split": "train"}, evaluated_on=data)
    comment = tabulate(layout, tmp_path).read_text().splitlines()[0]
    assert comment == "# Trained on phrasecut train (visual-genome). Evaluated on phrasecut val (visual-genome)."


def test_published_values_follow_as_printed_in_the_same_layout(layout: dict[str, Any], tmp_path: Path) -> None:
    output = tabulate(layout, tmp_path)
    lines = output.with_suffix(".md").read_text().splitlines()
    ours, paper, peer = (lines.index(f"*{title}*") for title in
                         ("Reproduced", "Published by Strudel et al. 2022", "Published by A peer"))  # fmt: skip
    assert ours < paper < peer
    assert lines[paper + 2 : paper + 7] == [
        "| Method | PhraseCut | RefCOCO+ | GroupViT |",
        "| --- | ---: | ---: | ---: |",
        "| TSEG | 28.77 | - | **51.20** |",
        "| TSEG (CRF) | **30.1** | - | - |",
        "| MDETR | - | **53.1** | - |",
    ]
    assert lines[peer + 4] == "| CLIP | - | **9.5** |"
    assert "99.99" not in "".join(lines)
    latex = output.with_suffix(".tex").read_text().splitlines()
    assert r"\begin{tabular}{lrrr}" in latex
    assert r"TSEG & 28.77 & - & \textbf{51.20} \\" in latex


def test_remarks_name_the_rows_columns_or_cells_that_they_concern(layout: dict[str, Any], tmp_path: Path) -> None:
    text = tabulate(layout, tmp_path).with_suffix(".md").read_text()
    assert "- Published: TSEG, PhraseCut: by lamplight." in text
    assert "- Published: TSEG, PhraseCut; MDETR, RefCOCO+: at sea." in text
    published = tmp_path / "results" / "published.csv"
    published.write_text(PUBLISHED.replace("28.77,none,by lamplight; at sea", "28.77,none,"))
    parsed = parse(TableLayout, layout, "layout")
    write_table(parsed, tmp_path / "results" / "other.csv", published=published)
    assert "- Published: MDETR: at sea." in (tmp_path / "results" / "other.md").read_text()


def test_remarks_say_what_published_results_had_access_to(layout: dict[str, Any], tmp_path: Path) -> None:
    text = tabulate(layout, tmp_path).with_suffix(".md").read_text()
    assert "- Published: MDETR: access: boxes, masks." in text
    assert "- Published: TSEG (CRF); TSEG: access: none." in text
    assert "- Published: CLIP: access: 400M pairs." in text


def test_published_results_without_a_column_are_refused_with_its_name(layout: dict[str, Any], tmp_path: Path) -> None:
    published = tmp_path / "mine.csv"
    published.write_text("source,table,row,column,metric,value,note\n")
    with pytest.raises(ValueError, match=r"mine\.csv has no column 'access'; add it"):
        write_table(parse(TableLayout, layout, "layout"), tmp_path / "table3.csv", published=published)


def test_a_published_result_of_another_metric_is_refused_and_nothing_is_written(
    layout: dict[str, Any], tmp_path: Path
) -> None:
    changed = PUBLISHED.replace("MDETR,RefCOCO+,mIoU", "MDETR,RefCOCO+,oIoU")
    with pytest.raises(ValueError, match=r"published\.csv: line 4: metric: 'oIoU' would stand beside mIoU in table 3"):
        tabulate(layout, tmp_path, changed)
    assert not (tmp_path / "results").exists()


def test_a_table_of_subsets_names_the_file_that_ranks_categories(tmp_path: Path) -> None:
    ranked = make_layout(tmp_path, evaluated_on={"name_ranks": "refer_train.json"})
    note = "Categories are ranked by their counts in refer_train.json."
    assert note not in tabulate(ranked, tmp_path).with_suffix(".md").read_text()
    for cell in ranked["cells"]:
        cell["metric"] = "subsets.c20"
    assert note in tabulate(ranked, tmp_path).with_suffix(".md").read_text()


def test_every_published_result_of_the_repository_says_what_it_had_access_to() -> None:
    published = pd.read_csv(ROOT / "config/published.csv", dtype=str, keep_default_na=False)
    words = {word for access in published["access"] for word in access.split("; ")}
    assert words == {
        *("none", "boxes", "masks", "proposals", "labels at test", "words chosen by the scores"),
        *("30M pairs", "400M pairs"),
    }


def test_a_table_without_published_values_has_only_ours(layout: dict[str, Any], tmp_path: Path) -> None:
    text = tabulate(layout | {"number": "subsets"}, tmp_path).with_suffix(".md").read_text()
    assert text.startswith("**Methods, in percent.** The models")
    assert "Published" not in text


def test_detail_has_a_line_for_each_cell_and_seed(layout: dict[str, Any], tmp_path: Path) -> None:
    detail = pd.read_csv(tabulate(layout, tmp_path).with_name("table3_detail.csv"), comment="#")
    assert len(detail) == 2 * len(SCORES)
    line = detail.query("row == 'TSEG' and column == 'PhraseCut' and seed == 1").iloc[0]
    assert line[["value", "mIoU", "mIoU_low", "published"]].tolist() == pytest.approx([30, 30, 15, 28.77])
    assert line["trained_on"] == "TSEG-PhraseCut train (shapes-coco)"


@pytest.mark.parametrize(("best", "bold"), [("column", {33.33, 50.0}), ("row", {50.0, 33.33}), ("table", {50.0})])
def test_best_of_each_column_or_row_or_of_all_is_bold(tmp_path: Path, best: str, bold: set[float]) -> None:
    text = tabulate(make_layout(tmp_path, seeds=(0,)) | {"best": best}, tmp_path).with_suffix(".html").read_text()
    ours = text.split("<h2>")[1]
    assert {float(part.split("</b>")[0]) for part in ours.split("<b>")[1:]} == bold


def test_a_metric_is_found_by_its_path(layout: dict[str, Any], tmp_path: Path) -> None:
    metrics = ["subsets.c500+", "classes.potted plant", "precision_0.5", "mIoU"]
    for cell, metric in zip(layout["cells"], metrics, strict=True):
        cell["metric"] = metric
        for seed, path in enumerate(cell["summaries"]):
            edit(path, subsets={"c500+": {"mIoU": 0.1 + seed / 10, "num_records": 4}}, classes={"potted plant": 0.7})
            measured = json.loads(Path(path).read_text())["metrics"]
            edit(path, metrics=measured | {"precision_0.5": 0.4})
    published = PUBLISHED.replace("TSEG (CRF),PhraseCut,mIoU", "TSEG (CRF),PhraseCut,precision_0.5")
    table = pd.read_csv(tabulate(layout, tmp_path, published), comment="#")
    assert table[["PhraseCut", "RefCOCO+"]].to_numpy().ravel().tolist() == [15.0, 70.0, 40.0, 0.05]


def test_a_value_that_is_missing_is_a_dash_and_counted(layout: dict[str, Any], tmp_path: Path) -> None:
    first, second = layout["cells"][:2]
    first["metric"], second["metric"] = "subsets.c20", "classes.cow"
    for path in first["summaries"]:
        edit(path, subsets={})
    edit(second["summaries"][0], classes={"cow": None})
    edit(second["summaries"][1], classes={"cow": 0.5})
    output = tabulate(layout, tmp_path)
    text = output.with_suffix(".md").read_text()
    assert "| TSEG | - | - |" in text
    assert "- 3 values are missing (-): no record belongs to them." in text
    table = pd.read_csv(output, comment="#", index_col=0)
    assert math.isnan(table.loc["TSEG", "PhraseCut"])
    assert json.loads(output.with_suffix(".json").read_text())["mean"]["TSEG"] == {}


def test_an_unknown_metric_is_named(layout: dict[str, Any], tmp_path: Path) -> None:
    layout["cells"][0]["metric"] = "miou"
    with pytest.raises(ValueError, match=r"TSEG-PhraseCut-0\.json: no metric is called miou"):
        tabulate(layout, tmp_path)


def test_notes_list_encoders_exclusions_and_the_layouts_note(layout: dict[str, Any], tmp_path: Path) -> None:
    edit(layout["cells"][0]["summaries"][0], num_excluded=12)
    edit(layout["cells"][1]["summaries"][1], num_excluded=None, labels={"cow": ["cow"], "person": ["man", "girl"]})
    edit(layout["cells"][1]["summaries"][0], image_encoder={"name": "wide_resnet38", "options": {"width": 16}})
    edit(layout["cells"][2]["summaries"][0], image_encoder={"name": "wide_resnet38", "options": {"width": 64}})
    text = tabulate(layout, tmp_path).with_suffix(".md").read_text()
    assert (
        "Image encoders: vit_tiny (depth 4); wide_resnet38 (width 16), a narrow stand-in for the paper's, 64 wide;"
        " wide_resnet38 (width 64)." in text
    )
    assert "Images left out of box pretraining, as they are in an evaluation split: 12 (TSEG-PhraseCut-mpa)." in text
    assert "- Read with care." in text
    assert "- Label engineering: person as man or girl." in text
    assert "Seeds averaged: 0; 1, ± their sample standard deviation." in text


def test_notes_and_detail_give_the_number_of_seen_images_excluded_or_scored(
    layout: dict[str, Any], tmp_path: Path
) -> None:
    seen, kept, none = (cell["summaries"] for cell in layout["cells"][:3])
    for path in seen:
        edit(path, num_seen=574, seen_excluded=True, num_without_mask=3)
    edit(kept[0], num_seen=7, seen_excluded=False)
    edit(none[0], num_seen=0, seen_excluded=True)
    output = tabulate(layout, tmp_path)
    notes = output.with_suffix(".md").read_text().splitlines()
    assert [note for note in notes if note.startswith(("- Images", "- Records"))] == [
        "- Images left out of evaluation, as the run was trained on them: 574 (TSEG-PhraseCut-mpa on TSEG-PhraseCut"
        " val).",
        "- Images scored although the run was trained on them: 7 (TSEG-RefCOCO+-mpa on TSEG-RefCOCO+ val).",
        "- Records without a mask, which have no score: 3 (TSEG-PhraseCut-mpa on TSEG-PhraseCut val).",
    ]
    detail = pd.read_csv(output.with_name("table3_detail.csv"), comment="#")
    assert detail["num_seen"].dropna().tolist() == [574, 574, 7, 0]


def test_notes_and_detail_say_how_images_became_masks(layout: dict[str, Any], tmp_path: Path) -> None:
    fixed, oracle = (cell["summaries"][0] for cell in layout["cells"][:2])
    edit(fixed, resolution=384, scales=[1.0, 0.5], flip=True, window=512, crf="pamr")
    edit(oracle, threshold="oracle", comparison=comparison("oracle"))
    output = tabulate(layout, tmp_path)
    text = output.with_suffix(".md").read_text()
    assert (
        "foreground probability > 0.5; foreground probability > 0.5 with each map cut at the area of its true" in text
    )
    assert "(an oracle and no result). Resolution: the image's own." in text
    views = "shorter side of 384 pixels, scales 1, 0.5, each mirrored too, windows of 512 pixels"
    assert f"- Input at inference: {views}; shorter side of 32 pixels." in text
    detail = pd.read_csv(output.with_name("table3_detail.csv"), comment="#")
    assert detail["threshold"].tolist().count("oracle") == 1
    assert detail["crf"].dropna().tolist() == ["pamr"]
    assert detail["window"].dropna().tolist() == [512]


def test_names_are_escaped_in_tex_and_html(layout: dict[str, Any], tmp_path: Path) -> None:
    old, new = "TSEG (CRF)", "λ 50% & <a_b>"
    layout["rows"] = [new if row == old else row for row in layout["rows"]]
    layout["cells"] = [cell | ({"row": new} if cell["row"] == old else {}) for cell in layout["cells"]]
    output = tabulate(layout, tmp_path)
    assert r"$\lambda$ 50\% \& \textless{}a\_b\textgreater{} & \textbf{33.33" in output.with_suffix(".tex").read_text()
    assert "<th>λ 50% &amp; &lt;a_b&gt;</th>" in output.with_suffix(".html").read_text()


@pytest.mark.parametrize("number", [0, 7])
def test_a_missing_summary_names_its_cell_and_nothing_is_written(
    layout: dict[str, Any], tmp_path: Path, number: int
) -> None:
    (row, column), seed = list(SCORES)[number // 2], number % 2
    del layout["cells"][number // 2]["summaries"][seed]
    with pytest.raises(ValueError) as error:
        tabulate(layout, tmp_path)
    assert f"the cell {row}, {column} needs one summary of seed {seed} and has 0 (none)" in str(error.value)
    assert not (tmp_path / "results").exists()


def test_two_summaries_of_one_cell_and_seed_are_both_named(layout: dict[str, Any], tmp_path: Path) -> None:
    second = write_summary(tmp_path, "other", 0, 0.9)
    layout["cells"][0]["summaries"].append(str(second))
    with pytest.raises(ValueError, match=r"TSEG, PhraseCut .*has 2 .*TSEG-PhraseCut-0\.json; .*other-0\.json"):
        tabulate(layout, tmp_path)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("labels", [{"row": "elsewhere"}, {"column": "elsewhere"}, {"column": "RefCOCO+"}])
def test_a_cell_that_is_repeated_or_outside_the_table_is_named(
    layout: dict[str, Any], tmp_path: Path, labels: dict[str, str]
) -> None:
    layout["cells"][0] |= labels
    with pytest.raises(ValueError, match=r"the cell .* must occur once, in one of the layout's rows and columns"):
        tabulate(layout, tmp_path)


def test_a_summary_of_another_kind_is_named(layout: dict[str, Any], tmp_path: Path) -> None:
    Path(layout["cells"][0]["summaries"][0]).write_text("{}")
    with pytest.raises(ValueError, match=r"TSEG-PhraseCut-0\.json is not a summary .*; make it with `tseg evaluate`"):
        tabulate(layout, tmp_path)


def test_published_csv_holds_the_papers_tables() -> None:
    values = pd.read_csv(ROOT / "config" / "published.csv", dtype={"table": str})
    assert not values.duplicated(["source", "table", "row", "column"]).any()
    paper = values[values["source"] == "Strudel et al. 2022"]
    assert paper.groupby("table")["value"].agg(["size", "sum"]).round(2).T.to_dict("list") == {
        "1": [8, 428.90],
        "2a": [12, 327.60],
        "2b": [3, 85.70],
        "2c": [2, 57.20],
        "2d": [3, 70.30],
        "2e": [2, 60.50],
        "3": [20, 302.57],
        "4.5": [12, 551.17],
        "4.6": [6, 224.50],
    }
    table = paper[paper["table"] == "3"].pivot(index="row", columns="column", values="value")
    assert table.loc["TSEG (CRF)"].to_dict() == {
        "PhraseCut": 30.12, "RefCOCO": 25.95, "RefCOCO+": 22.62, "RefCOCOg": 23.41,
    }  # fmt: skip
    weak = paper[paper["row"] == "TSEG (weak supervision)"].set_index("column")["value"]
    assert weak.to_dict() == table.loc["TSEG"].to_dict()


def test_a_table_of_200_rows_and_20_columns_is_made_by_the_command_line(tmp_path: Path) -> None:
    """Its layout, 4,000 summaries with long paths, is longer than any argument of a command can be."""
    folder = tmp_path / ("long-" * 30)
    folder.mkdir()
    rows, columns = [f"method {number}" for number in range(200)], [f"data set {number}" for number in range(20)]
    template = write_summary(folder, "one", 0, 0.5).read_text()
    cells = []
    for index, (row, column) in enumerate(product(rows, columns)):
        path = folder / f"{index}.json"
        path.write_text(template.replace('"mIoU":0.5', f'"mIoU":{index / 4000}'))
        cells.append({"row": row, "column": column, "metric": "mIoU", "summaries": [str(path)]})
    layout = make_layout(tmp_path) | {"rows": rows, "columns": columns, "cells": cells}
    text = json.dumps(layout)
    assert len(text) > 2**17
    (tmp_path / "published.csv").write_text(PUBLISHED.splitlines()[0] + "\n")
    command = [sys.executable, "-m", "tseg", "tabulate", "--layout", "-", "--published", "published.csv"]
    done = subprocess.run(
        [*command, "--output", "table3.csv"], cwd=tmp_path, input=text, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "table3.csv", comment="#", index_col=0)
    assert list(table.index) == rows and list(table.columns) == columns
    np.testing.assert_allclose(table.to_numpy().ravel(), np.arange(4000) / 40, atol=0.0051)
