"""Tables say what evaluation measured, of which data, and are written whole or not at all."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tseg.reporting.tables import METRICS, write_table

DATASETS = {"phrasecut": "PhraseCut", "refcoco+": "RefCOCO+"}
ROWS = [
    {"method": "TSEG", "pooling": "mpa", "crf": False},
    {"method": "TSEG (CRF)", "pooling": "mpa", "crf": True},
]
# mIoU by dataset and crf, of seeds 0 and 1.
SCORES = {
    ("phrasecut", False): (0.20, 0.30),
    ("phrasecut", True): (0.3333, 0.3333),
    ("refcoco+", False): (0.5, 0.25),
    ("refcoco+", True): (0.0, 0.001),
}
PUBLISHED = """source,table,method,dataset,split,metric,value,note
Strudel et al. 2022,3,TSEG,phrasecut,val,mIoU,28.77,
Strudel et al. 2022,3,TSEG (CRF),phrasecut,val,mIoU,30.12,
Strudel et al. 2022,3,TSEG,refcoco+,test,mIoU,99.99,another split
Strudel et al. 2022,4,TSEG,refcoco+,val,mIoU,99.99,another table
A peer,3,TSEG,refcoco+,val,mIoU,99.99,another paper
"""


@pytest.fixture
def summaries(tmp_path: Path) -> list[Path]:
    return [
        write_summary(tmp_path, dataset, crf, seed, score)
        for (dataset, crf), scores in SCORES.items()
        for seed, score in enumerate(scores)
    ]


def write_summary(folder: Path, dataset: str, crf: bool, seed: int, score: float, *, source: str = "shapes") -> Path:
    summary = dict.fromkeys(METRICS, score) | {
        "run": f"{dataset}-mpa",
        "dataset": dataset,
        "split": "val",
        "pooling": "mpa",
        "crf": "psa" if crf else None,
        "seed": seed,
        "trained_on": {"dataset": dataset, "split": "train", "sources": [source]},
        "evaluated_on": {"dataset": dataset, "split": "val", "sources": [source]},
        "comparison": "foreground probability > 0.5",
        "resolution": "the picture's own",
        "num_records": 512,
        "num_pictures": 100,
    }
    path = folder / f"{dataset}-{crf}-{seed}-{source}.json"
    path.write_text(json.dumps(summary))
    return path


def tabulate(summaries: list[Path], folder: Path) -> Path:
    published = folder / "published.csv"
    published.write_text(PUBLISHED)
    output = folder / "results" / "table3.csv"
    write_table(summaries, output, datasets=DATASETS, rows=ROWS, table="3", published=published)
    return output


def test_cells_are_means_over_seeds_in_percent(summaries: list[Path], tmp_path: Path) -> None:
    lines = tabulate(summaries, tmp_path).read_text().splitlines()
    assert lines[0].startswith("# ")
    assert lines[1:] == ["Method,PhraseCut,RefCOCO+", "TSEG,25.00,37.50", "TSEG (CRF),33.33,0.05"]


def test_csv_reads_back_with_its_comment(summaries: list[Path], tmp_path: Path) -> None:
    table = pd.read_csv(tabulate(summaries, tmp_path), comment="#")
    assert list(table.columns) == ["Method", "PhraseCut", "RefCOCO+"]
    assert table["RefCOCO+"].tolist() == [37.5, 0.05]


def test_every_file_says_that_the_data_are_shapes(summaries: list[Path], tmp_path: Path) -> None:
    output = tabulate(summaries, tmp_path)
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
    summaries = [write_summary(tmp_path, dataset, crf, 0, 0.2, source="visual-genome") for dataset, crf in SCORES]
    comment = tabulate(summaries, tmp_path).read_text().splitlines()[0]
    assert "Evaluated on PhraseCut val (visual-genome); RefCOCO+ val (visual-genome)." in comment
    assert "shapes" not in comment


def test_published_values_stand_beside_only_where_method_table_and_split_agree(
    summaries: list[Path], tmp_path: Path
) -> None:
    output = tabulate(summaries, tmp_path)
    detail = pd.read_csv(output.with_name("table3_detail.csv"), comment="#")
    assert detail.groupby("dataset")["published"].unique()["phrasecut"].tolist() == [28.77, 30.12]
    assert detail.loc[detail["dataset"] == "refcoco+", "published"].isna().all()
    for suffix, row in ((".md", "| TSEG | 28.77 | - |"), (".tex", r"TSEG & 28.77 & - \\")):
        text = output.with_suffix(suffix).read_text()
        assert row in text
        assert "99.99" not in text


def test_detail_has_a_line_for_each_cell_and_seed(summaries: list[Path], tmp_path: Path) -> None:
    detail = pd.read_csv(tabulate(summaries, tmp_path).with_name("table3_detail.csv"), comment="#")
    assert len(detail) == len(summaries)
    line = detail.query("method == 'TSEG' and dataset == 'refcoco+' and seed == 1").iloc[0]
    assert line[METRICS].tolist() == [25.0] * len(METRICS)
    assert line["trained_on"] == "RefCOCO+ train (shapes)"


def test_best_of_each_column_is_bold(summaries: list[Path], tmp_path: Path) -> None:
    output = tabulate(summaries, tmp_path)
    assert "| TSEG | 25.00 | **37.50** |" in output.with_suffix(".md").read_text()
    assert r"TSEG (CRF) & \textbf{33.33} & 0.05 \\" in output.with_suffix(".tex").read_text()
    assert output.with_suffix(".html").read_text().count("<b>") == 3


def test_names_are_escaped_in_tex_and_html(summaries: list[Path], tmp_path: Path) -> None:
    rows = [row | {"method": f"{row['method']} 50% & <a_b>"} for row in ROWS]
    output = tmp_path / "t.csv"
    published = tmp_path / "published.csv"
    published.write_text(PUBLISHED)
    write_table(summaries, output, datasets=DATASETS, rows=rows, table="3", published=published)
    assert r"TSEG 50\% \& \textless{}a\_b\textgreater{} & 25.00" in output.with_suffix(".tex").read_text()
    assert "<th>TSEG 50% &amp; &lt;a_b&gt;</th>" in output.with_suffix(".html").read_text()


@pytest.mark.parametrize("number", [0, 7])
def test_a_missing_summary_names_its_cell_and_nothing_is_written(
    summaries: list[Path], tmp_path: Path, number: int
) -> None:
    (dataset, crf), seed = list(SCORES)[number // 2], number % 2
    cell = f"TSEG{' (CRF)' if crf else ''}, {DATASETS[dataset]} needs one summary of seed {seed} and has 0"
    del summaries[number]
    with pytest.raises(ValueError) as error:
        tabulate(summaries, tmp_path)
    assert cell in str(error.value)
    assert not (tmp_path / "results").exists()


def test_two_summaries_of_one_cell_and_seed_are_both_named(summaries: list[Path], tmp_path: Path) -> None:
    second = write_summary(tmp_path, "phrasecut", False, 0, 0.9, source="other")
    with pytest.raises(ValueError, match=r"TSEG, PhraseCut .*has 2 .*shapes\.json; .*other\.json"):
        tabulate([*summaries, second], tmp_path)
    assert not (tmp_path / "results").exists()


def test_published_csv_holds_the_whole_of_table_3() -> None:
    values = pd.read_csv(Path(__file__).parents[2] / "config" / "published.csv", dtype={"table": str})
    table = values[values["table"] == "3"].pivot(index="method", columns="dataset", values="value")
    assert table.shape == (5, 4)
    assert table.loc["TSEG (CRF)"].to_dict() == {
        "phrasecut": 30.12, "refcoco": 25.95, "refcoco+": 22.62, "refcocog": 23.41,
    }  # fmt: skip
    assert table.sum().round(2).to_dict() == {
        "phrasecut": 95.13, "refcoco": 74.90, "refcoco+": 66.12, "refcocog": 66.42,
    }  # fmt: skip
