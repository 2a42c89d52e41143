"""config/experiments.yaml: the tables and figures as grids of runs.

A cell joins what the table, its column and its row say; a label with {method} or {class} stands for one each. Cells
that ask for the same run share it, by its name.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveInt

from tseg.settings.runs import Evaluation, make_run, pretraining_run, vary
from tseg.settings.schema import RunSettings, Settings, StrictModel
from tseg.settings.validation import check_known


class MethodSettings(StrictModel):
    """One line of `methods`."""

    pooling: str
    """A function of `tseg.model.pooling` under @pooling."""


class CellSettings(StrictModel):
    """A part of the description of a cell."""

    method: str | None = None
    """A key of `methods`."""
    dataset: str | None = None
    """What it is trained on."""
    supervision: Literal["weak", "full"] | None = None
    """weak unless said."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys of the configuration with values in place of the scale's, such as model.embed_dim: 384."""
    evaluate: str | None = None
    """Data set that it is evaluated on; the one it is trained on unless said."""
    multiscale: bool | None = None
    crf: bool | None = None
    labels: str | None = None
    """A label set: the words to ask for in place of the names of classes."""
    metric: str | None = None
    """Dotted path in the summary; mIoU unless said."""


class PatternSettings(CellSettings):
    """A row or a column."""

    methods: list[str] | None = None
    """Which methods {method} stands for; all unless said."""
    without: list[str] = Field(default_factory=list)
    """Which methods it does not stand for."""


class TableSettings(StrictModel):
    """One table."""

    number: str
    """As the paper numbers it: the published numbers are found by it."""
    title: str
    corner: str = "Method"
    """What stands over the labels of the rows."""
    best: Literal["column", "row", "table"] = "column"
    """Among which cells the best is marked."""
    note: str = ""
    cells: CellSettings = CellSettings()
    """What all cells share."""
    columns: dict[str, PatternSettings]
    rows: dict[str, PatternSettings]


class FigureSettings(StrictModel):
    """One figure: the masks of its columns on the images of one data set."""

    kind: Literal["masks", "expressions", "classes", "assignment"]
    title: str
    caption: str
    cells: CellSettings = CellSettings()
    columns: dict[str, PatternSettings]
    seed: NonNegativeInt = 0
    """Another seed draws other images."""
    num_panels: PositiveInt = 6


class Experiments(StrictModel):
    """The whole file."""

    methods: dict[str, MethodSettings]
    tables: dict[str, TableSettings]
    figures: dict[str, FigureSettings]


LabelSets = dict[str, dict[str, Annotated[list[str], Field(min_length=1)]]]
"""config/label_sets.yaml: name of a set, class, words to ask for in its place."""


class Cell(NamedTuple):
    """One number of a table, or one column of a figure."""

    row: str
    column: str
    run: RunSettings
    pretraining: RunSettings | None
    evaluation: Evaluation
    crf: bool
    metric: str


def table_cells(experiments: Experiments, settings: Settings, label_sets: LabelSets) -> dict[str, list[Cell]]:
    """The cells of every table. Raises ValueError, naming the place, for what the settings do not know."""
    return {
        name: [
            _cell(f"tables.{name}", experiments, settings, label_sets, (row, column), (table.cells, column_of, row_of))
            for row, row_of in _expand(f"tables.{name}.rows", table.rows, table.cells, experiments, settings)
            for column, column_of in _expand(
                f"tables.{name}.columns", table.columns, table.cells, experiments, settings
            )
        ]
        for name, table in experiments.tables.items()
    }


def figure_cells(experiments: Experiments, settings: Settings, label_sets: LabelSets) -> dict[str, list[Cell]]:
    """The columns of every figure, all of one data set. Raises ValueError as `table_cells`."""
    cells = {
        name: [
            _cell(f"figures.{name}", experiments, settings, label_sets, ("", column), (figure.cells, of_column))
            for column, of_column in _expand(
                f"figures.{name}.columns", figure.columns, figure.cells, experiments, settings
            )
        ]
        for name, figure in experiments.figures.items()
    }
    for name, columns in cells.items():
        _check_figure(f"figures.{name}", experiments.figures[name].kind, columns, settings)
    return cells


def _check_figure(place: str, kind: str, columns: list[Cell], settings: Settings) -> None:
    datasets = {cell.evaluation.dataset for cell in columns}
    if len(datasets) != 1:
        raise ValueError(f"{place}: its columns are of {len(datasets)} data sets; draw one")
    if kind in ("expressions", "assignment") and len(columns) > 1:
        raise ValueError(f"{place}: a figure of kind {kind} shows one run, not {len(columns)}; name one column")
    if (kind == "classes") != (settings.datasets[datasets.pop()].classes is not None):
        raise ValueError(f"{place}: kind classes goes with a data set with classes, and only with it; choose another")


def runs_of(cells: Iterable[Cell]) -> dict[str, RunSettings]:
    """Every run of the cells by its name, with those that they start from. Raises ValueError where two share a name."""
    runs: dict[str, RunSettings] = {}
    for cell in cells:
        for run in filter(None, (cell.pretraining, cell.run)):
            if runs.setdefault(run.run, run) != run:
                raise ValueError(f"two different runs are called {run.run}; vary keys whose last parts differ")
    return runs


def labels_of(settings: Settings, label_sets: LabelSets, evaluation: Evaluation) -> dict[str, list[str]] | None:
    """Class to the words that stand for it; None for a data set without classes."""
    classes = settings.datasets[evaluation.dataset].classes
    words = label_sets[evaluation.labels] if evaluation.labels else {}
    return {name: words.get(name, [name]) for name in classes} if classes else None


def _expand(
    origin: str,
    patterns: dict[str, PatternSettings],
    shared: CellSettings,
    experiments: Experiments,
    settings: Settings,
) -> list[tuple[str, CellSettings]]:
    """Labels and their descriptions: first, method by method, the patterns that hold {method}, then the others."""
    for label, pattern in patterns.items():
        _check_pattern(f"{origin}: {label}", label, pattern, experiments)
    by_method: list[tuple[str, CellSettings]] = [
        (label.replace("{method}", method), _join(pattern, CellSettings(method=method)))
        for method in experiments.methods
        for label, pattern in patterns.items()
        if "{method}" in label and method in (pattern.methods or experiments.methods) and method not in pattern.without
    ]
    others: list[tuple[str, CellSettings]] = []
    for label, pattern in patterns.items():
        if "{class}" in label:
            classes = _classes(f"{origin}: {label}", shared, settings)
            metrics = {name: CellSettings(metric=f"classes.{name}") for name in classes}
            others += [(label.replace("{class}", name), _join(pattern, metric)) for name, metric in metrics.items()]
        elif "{method}" not in label:
            others.append((label, pattern))
    return by_method + others


def _check_pattern(place: str, label: str, pattern: PatternSettings, experiments: Experiments) -> None:
    named = (*(pattern.methods or []), *pattern.without)
    for name in named:
        check_known(name, experiments.methods, f"{place}: there is no method")
    if "{method}" in label and "{class}" in label:
        raise ValueError(f"{place}: a label stands for methods or for classes; put one of them into the columns")
    if named and "{method}" not in label:
        raise ValueError(f"{place}: methods and without say what {{method}} stands for; put it into the label")


def _classes(place: str, shared: CellSettings, settings: Settings) -> list[str]:
    """What {class} stands for."""
    dataset = shared.evaluate or shared.dataset
    classes = settings.datasets[dataset].classes if dataset in settings.datasets else None
    if not classes:
        raise ValueError(f"{place}: {{class}} needs a data set with classes; name one in cells, under evaluate")
    return classes


def _join(*parts: CellSettings) -> CellSettings:
    """What the parts say together; of two that say the same the later holds."""
    joined: dict[str, Any] = {}
    for part in parts:
        said = part.model_dump(exclude_none=True, exclude={"methods", "without"})
        joined |= said | {"settings": joined.get("settings", {}) | said["settings"]}
    return CellSettings(**joined)


def _cell(
    origin: str,
    experiments: Experiments,
    settings: Settings,
    label_sets: LabelSets,
    labels: tuple[str, str],
    parts: tuple[CellSettings, ...],
) -> Cell:
    said = _join(*parts)
    place = f"{origin}: {', '.join(filter(None, labels))}"
    supervision = said.supervision or "weak"
    if said.dataset is None or (supervision == "weak" and said.method is None):
        raise ValueError(f"{place}: it names no {'method' if said.dataset else 'dataset'}; say it there")
    evaluated = said.evaluate or said.dataset
    for dataset in (said.dataset, evaluated):
        check_known(dataset, settings.datasets, f"{place}: the configuration knows no data set")
    if said.method is not None:
        check_known(said.method, experiments.methods, f"{place}: there is no method")
    if said.labels is not None:
        check_known(said.labels, label_sets, f"{place}: there is no label set")
        _check_labels(f"{place}: the label set {said.labels}", label_sets[said.labels], evaluated, settings)
    if supervision == "full" and settings.datasets[evaluated].classes:
        raise ValueError(f"{place}: full supervision scores no class; evaluate it on a data set of expressions")
    pooling = experiments.methods[said.method].pooling if supervision == "weak" and said.method else None
    try:
        run = make_run(settings, said.dataset, supervision, pooling, said.settings)
        start = vary(settings, said.settings).training.weak.pretraining if run.pretraining else None
        pretraining = pretraining_run(settings, start, said.settings) if start else None
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    if hasattr(run.model.text_encoder, "classes") and (evaluated != said.dataset or said.labels):
        raise ValueError(f"{place}: class encoding knows the classes that it is trained on alone; ask a language model")
    evaluation = Evaluation(evaluated, settings.datasets[evaluated].evaluation, bool(said.multiscale), said.labels)
    return Cell(*labels, run, pretraining, evaluation, bool(said.crf), said.metric or "mIoU")


def _check_labels(place: str, label_set: dict[str, list[str]], dataset: str, settings: Settings) -> None:
    classes = settings.datasets[dataset].classes or []
    if not set(label_set) & set(classes):
        raise ValueError(f"{place} has none of {dataset}'s classes; add them")
    words = [word for name in classes for word in label_set.get(name, [name])]
    if twice := {word for word in words if words.count(word) > 1 or not word.strip()}:
        raise ValueError(f"{place} has {min(twice)!r} for two classes, or twice, or it is empty; fix its words")
