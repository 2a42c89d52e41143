"""Published numbers are checked before any work: a mistake is told with the file, the line, the column and the fix."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tseg.settings.layout import TableLayout
from tseg.settings.plan import Plan
from tseg.settings.published import PublishedResult, read_published

ROOT = Path(__file__).parents[2]
HEADER = "source,table,row,column,metric,value,access,note\n"
# Rows that are metrics, columns that are metrics, and the subsets of one metric.
TABLES: dict[str, dict[tuple[str, str], str]] = {
    "3": {("TSEG", "RefCOCO"): "mIoU", ("GAP", "RefCOCO"): "mIoU"},
    "4.6": {("mIoU", "TSEG"): "mIoU", ("cat", "TSEG"): "classes.cat"},
    "own": {("TSEG", "mean"): "mIoU", ("TSEG", "overall"): "overall_IoU", ("TSEG", "half"): "precision_0.5"},
    "subsets": {("TSEG", "c 1-20"): "subsets.c20", ("TSEG", "c 500+"): "subsets.c500+"},
}


def layout(number: str, metrics: dict[tuple[str, str], str]) -> TableLayout:
    cells = [
        {"row": row, "column": column, "metric": metric, "summaries": []} for (row, column), metric in metrics.items()
    ]
    labels = {"rows": list({row for row, _ in metrics}), "columns": list({column for _, column in metrics})}
    texts = {"table": f"table{number}", "number": number, "title": "", "corner": "", "best": "column", "note": ""}
    return TableLayout.model_validate(texts | labels | {"cells": cells})


LAYOUTS = [layout(number, metrics) for number, metrics in TABLES.items()]


def read(folder: Path, lines: str, header: str = HEADER) -> list[PublishedResult]:
    (folder / "peers.csv").write_text(header + lines, encoding="utf-8")
    return read_published(folder / "peers.csv", LAYOUTS)


def refusal(folder: Path, lines: str, header: str = HEADER) -> str:
    """The message, without the folder."""
    with pytest.raises(ValueError) as error:
        read(folder, lines, header)
    return str(error.value).replace(f"{folder}/", "")


def test_results_are_read_as_they_are_written(tmp_path: Path) -> None:
    found = read(tmp_path, 'A peer,3,"TSEG, ours",RefCOCO,mIoU,28.70,none,"by ""moon"" light\nat sea"\n\n')
    assert found == [
        PublishedResult("A peer", "3", "TSEG, ours", "RefCOCO", "mIoU", "28.70", "none", 'by "moon" light\nat sea')
    ]


def test_the_order_of_columns_other_columns_spaces_and_a_mark_of_utf8_do_not_matter(tmp_path: Path) -> None:
    text = "\ufeffvalue, year,source,table,row,column,metric,access,note\r\n7,2024,A peer, 3,λ ,RefCOCO,mIoU,none,\r\n"
    assert read(tmp_path, "", text) == [PublishedResult("A peer", "3", "λ", "RefCOCO", "mIoU", "7", "none", "")]


@pytest.mark.parametrize(
    ("cell", "metric"),
    [
        ("3,TSEG,RefCOCO", "mIoU"),
        ("3,CLIP,RefCOCO", "mIoU"),
        ("3,TSEG,RefCLEF", "mIoU"),
        ("3,CLIP,RefCLEF", "mIoU"),
        ("4.6,cat,TSEG", "IoU"),
        ("4.6,cat,TSEG", "classes.cat"),
        ("4.6,cat,CLIP", "IoU"),
        ("4.6,mIoU,CLIP", "mIoU"),
        ("4.6,dog,TSEG", "IoU"),
        ("own,CLIP,overall", "overall_IoU"),
        ("own,CLIP,mean", "mIoU"),
        ("own,TSEG,more", "precision_0.5"),
        ("own,CLIP,more", "overall_IoU"),
        ("subsets,TSEG,c 1-20", "mIoU"),
        ("subsets,TSEG,c 1-20", "subsets.c20"),
        ("elsewhere,TSEG,RefCOCO", "FPS"),  # no table of ours shows it
    ],
)
def test_a_metric_of_the_cells_beside_it_is_accepted(tmp_path: Path, cell: str, metric: str) -> None:
    assert [found.metric for found in read(tmp_path, f"A peer,{cell},{metric},7,none,\n")] == [metric]


@pytest.mark.parametrize(
    ("cell", "metric", "ours"),
    [
        ("3,TSEG,RefCOCO", "overall_IoU", "mIoU"),
        ("3,CLIP,RefCOCO", "miou", "mIoU"),
        ("3,CLIP,RefCLEF", "IoU", "mIoU"),
        ("3,TSEG,RefCOCO", "subsets.c20", "mIoU"),
        ("4.6,cat,TSEG", "mIoU", "IoU"),
        ("4.6,cat,TSEG", "classes.dog", "IoU"),
        ("4.6,cat,CLIP", "mIoU", "IoU"),
        ("4.6,dog,TSEG", "overall_IoU", "mIoU and IoU"),
        ("own,TSEG,overall", "mIoU", "overall_IoU"),
        ("own,CLIP,mean", "overall_IoU", "mIoU"),
        ("own,CLIP,more", "IoU", "mIoU and overall_IoU and precision_0.5"),
        ("subsets,TSEG,c 1-20", "subsets.c500+", "mIoU"),
        ("subsets,CLIP,c 500+", "IoU", "mIoU"),
    ],
)
def test_a_metric_of_no_cell_beside_it_is_refused(tmp_path: Path, cell: str, metric: str, ours: str) -> None:
    number = cell.partition(",")[0]
    assert refusal(tmp_path, f"A peer,{cell},{metric},7,none,\n") == (
        f"peers.csv: line 2: metric: '{metric}' would stand beside {ours} in table {number}; correct it, or move the "
        "line to a table with its metric"
    )


@pytest.mark.parametrize(
    ("name", "ours"),
    [("oIoU", "overall_IoU"), ("cIoU", "overall_IoU"), ("P@0.5", "precision_0.5"), ("Pr@0.9", "precision_0.9")],
)
def test_a_common_name_of_a_metric_is_refused_with_ours(tmp_path: Path, name: str, ours: str) -> None:
    assert refusal(tmp_path, f"A peer,3,LAVT,RefCOCO,{name},72.7,masks,\n").endswith(f"({name} is our {ours})")


@pytest.mark.parametrize("value", ["0", "0.6", ".5", "66.00", "100", "100.0"])
def test_a_value_is_a_percentage(tmp_path: Path, value: str) -> None:
    assert [found.value for found in read(tmp_path, f"A peer,3,TSEG,RefCOCO,mIoU,{value},none,\n")] == [value]


@pytest.mark.parametrize("table", ["3", "elsewhere"])
@pytest.mark.parametrize("value", ["", "-", "n/a", "nan", "inf", "-1", "100.1", "28.77 %", "28,77", "1_0", "1e1", "٣"])
def test_another_value_is_refused_in_every_table(tmp_path: Path, value: str, table: str) -> None:
    lines = f'A peer,3,GAP,RefCOCO,mIoU,7,none,\nA peer,{table},TSEG,RefCOCO,mIoU,"{value}",none,\n'
    assert refusal(tmp_path, lines) == (
        f"peers.csv: line 3: value: '{value}' is no number from 0 to 100; write percent, such as 28.77"
    )


@pytest.mark.parametrize("empty", range(5))
def test_what_says_where_a_value_belongs_is_not_empty(tmp_path: Path, empty: int) -> None:
    fields = ["A peer", "elsewhere", "TSEG", "RefCOCO", "mIoU", "7", "", ""]
    fields[empty] = " "
    assert refusal(tmp_path, ",".join(fields)) == (
        f"peers.csv: line 2: {PublishedResult._fields[empty]}: it is empty; fill it in"
    )


@pytest.mark.parametrize("missing", PublishedResult._fields)
def test_a_missing_column_is_named(tmp_path: Path, missing: str) -> None:
    header = ",".join(name for name in PublishedResult._fields if name != missing)
    assert refusal(tmp_path, "", header) == (
        f"peers.csv has no column '{missing}'; add it, as in config/published.csv of the repository"
    )


def test_an_empty_file_has_no_columns(tmp_path: Path) -> None:
    assert refusal(tmp_path, "", "").startswith("peers.csv has no column 'source'; add it")


@pytest.mark.parametrize("table", ["3", "elsewhere"])
def test_a_cell_that_is_there_twice_is_refused_with_both_lines(tmp_path: Path, table: str) -> None:
    lines = f'A peer,{table},TSEG,RefCOCO,mIoU,7,none,"at\nsea"\n\nAnother,{table},TSEG,RefCOCO,mIoU,7,none,\n'
    assert len(read(tmp_path, lines)) == 2
    assert refusal(tmp_path, f"{lines}A peer,{table},TSEG ,RefCOCO,mIoU,8,none,\n") == (
        f"peers.csv: line 6: source, table, row, column: 'A peer', '{table}', 'TSEG', 'RefCOCO' are those of line 2 "
        "too; keep one"
    )


@pytest.mark.parametrize(("fields", "number"), [("none,by day, at sea", 9), ("none", 7)])
def test_a_line_with_another_number_of_fields_is_refused(tmp_path: Path, fields: str, number: int) -> None:
    assert refusal(tmp_path, f"A peer,3,TSEG,RefCOCO,mIoU,7,{fields}\n") == (
        f"peers.csv: line 2 has {number} fields, and the header has 8; leave out no column, and put double quotes "
        "around a field with a comma"
    )


@pytest.mark.parametrize("note", ['"at sea', '"at" sea'])
def test_quotes_that_do_not_match_are_refused_with_the_line_where_they_open(tmp_path: Path, note: str) -> None:
    before, after = (f"A peer,3,{row},RefCOCO,mIoU,7,none," for row in ("TSEG", "GAP"))
    told = refusal(tmp_path, f"{before}\n{after}{note}\n{before.replace('TSEG', 'SPA')}\n")
    assert re.fullmatch(r"peers\.csv: line 3: .*; close its double quotes, and write one inside a field twice", told), (
        told
    )


def test_a_file_of_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "peers.csv").write_bytes(f"{HEADER}A peer,3,Müller,RefCOCO,mIoU,7,none,\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"peers\.csv is not UTF-8; save it as CSV in UTF-8"):
        read_published(tmp_path / "peers.csv", LAYOUTS)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.csv does not exist; restore it from the repository, or name an"):
        read_published(tmp_path / "nowhere.csv", LAYOUTS)


def test_a_result_must_fit_every_table_of_its_number(tmp_path: Path) -> None:
    (tmp_path / "peers.csv").write_text(f"{HEADER}A peer,3,TSEG,RefCOCO,mIoU,7,none,\n")
    with pytest.raises(ValueError, match="line 2: metric: 'mIoU' would stand beside overall_IoU in table 3"):
        read_published(tmp_path / "peers.csv", [*LAYOUTS, layout("3", {("TSEG", "RefCOCO"): "overall_IoU"})])


def plan(name: str, **changed: Any) -> Plan:
    values = yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8"))
    return Plan(values | changed, name)


@pytest.fixture
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("in_root")
@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("RefCOCO,mIoU,25.44", "RefCOCO,oIoU,25.44", r"line \d+: metric: 'oIoU' would stand beside mIoU in table 3"),
        ("mIoU,25.44", "mIoU,about 25", r"line \d+: value: 'about 25' is no number"),
        ("value,access", "value,acess", "has no column 'access'"),
        ("3,GAP,", "3,GMP,", r"line \d+: source, table, row, column: .* are those of line \d+ too"),
        ("TSEG,IoU,0.6", "TSEG,mIoU,0.6", r"line \d+: metric: 'mIoU' would stand beside IoU in table 4\.6"),
    ],
)
def test_a_plan_refuses_a_mistake_in_the_repositorys_file(
    tmp_path: Path, before: str, after: str, complaint: str
) -> None:
    text = (ROOT / "config/published.csv").read_text(encoding="utf-8")
    assert before in text
    peers = tmp_path / "peers.csv"
    peers.write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"^{re.escape(str(peers))}:? {complaint}"):
        plan("paper.yaml", published=str(peers))


@pytest.mark.usefixtures("in_root")
@pytest.mark.parametrize("name", ["config.yaml", "paper.yaml", "photos.yaml"])
def test_the_repositorys_file_is_accepted_with_every_configuration_and_agrees_with_pythons_csv(name: str) -> None:
    made = plan(name)
    path = ROOT / "config/published.csv"
    with path.open(encoding="utf-8", newline="") as file:
        expected = [tuple(line.values()) for line in csv.DictReader(file)]
    assert read_published(path, map(made.layout, made.tables)) == expected


@pytest.mark.usefixtures("in_root")
def test_no_result_of_the_repositorys_file_may_have_another_metric(tmp_path: Path) -> None:
    made = plan("paper.yaml")
    layouts = [made.layout(table) for table in made.tables]
    for result in read_published(ROOT / "config/published.csv", layouts):
        with (tmp_path / "peers.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([PublishedResult._fields, result._replace(metric="overall_IoU")])
        with pytest.raises(ValueError, match="line 2: metric: 'overall_IoU' would stand beside"):
            read_published(tmp_path / "peers.csv", layouts)
