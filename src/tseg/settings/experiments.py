"""config/experiments.yaml: the tables and figures as grids of runs.

A cell merges the settings of its table, its column and its row. A row or column whose label contains {method} or
{class} is repeated for every method or class. Cells with the same run share it.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveInt

from tseg.expressions import clean_expression
from tseg.settings.run_schema import PoolingSettings, RunSettings
from tseg.settings.runs import Evaluation, Refinement, make_run, pretraining_run, vary
from tseg.settings.schema import RefinementName, Settings, StrictModel, ThresholdRule
from tseg.settings.validation import check_known, prefix_errors


class MethodSettings(PoolingSettings):
    """One method: a pooling and its options."""

    name: str = Field(alias="pooling")
    """A pooling of `tseg.model.pooling`."""


class CellSettings(StrictModel):
    """Settings of a cell, a column, a row, or of all cells of a table."""

    method: str | None = None
    """A key of `methods`."""
    dataset: str | None = None
    """Data set to train on."""
    supervision: Literal["weak", "full", "pseudo"] | None = None
    """pseudo: self-training, with the masks of the method's weak run. Default: weak."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the method's options, such as size_power: 0."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the configuration, by dotted key, such as model.embed_dim: 384."""
    evaluate: str | None = None
    """Data set to evaluate on. Default: `dataset`."""
    split: Annotated[str, Field(pattern="^[^/]+$")] | None = None
    """Split to evaluate on, such as val+miniv. Default: the data set's `evaluation`."""
    multiscale: bool | None = None
    """Average over scales and flips. Default: no."""
    crf: bool | RefinementName | None = None
    """Refine the masks by the configuration's `inference.crf`, or by the refinement named here. Default: no."""
    threshold: ThresholdRule | Literal["calibrated"] | None = None
    """Rule that turns a map into a mask; calibrated: the configuration's `inference.threshold`. Default: fixed, the
    paper's."""
    labels: str | None = None
    """A label set, whose expressions replace class names."""
    given: bool | None = None
    """Data sets with classes: score a mask per class that the image has, as its labels say. Default: no."""
    metric: str | None = None
    """Dotted path of a metric in the summary. Default: mIoU."""


class PatternSettings(CellSettings):
    """A row or a column. If its label contains {method}, its `options` must be valid for each of these methods."""

    methods: list[str] | None = None
    """The methods that {method} stands for. Default: all."""
    without: list[str] = Field(default_factory=list)
    """Methods that {method} does not stand for."""


class TableSettings(StrictModel):
    """One table."""

    number: str
    """Its number in the paper and in published.csv."""
    title: str
    corner: str = "Method"
    """Header of the column of row labels."""
    best: Literal["column", "row", "table"] = "column"
    """Where the best cell is marked: in each column, each row or the whole table."""
    note: str = ""
    """Text below the table."""
    cells: CellSettings = CellSettings()
    """Settings of all cells."""
    columns: dict[str, PatternSettings]
    rows: dict[str, PatternSettings]


class FigureSettings(StrictModel):
    """One figure: the masks of its columns on images of one data set."""

    kind: Literal["masks", "expressions", "classes", "assignment"]
    title: str
    caption: str
    cells: CellSettings = CellSettings()
    columns: dict[str, PatternSettings]
    seed: NonNegativeInt = 0
    """Seed of the random choice of images."""
    num_panels: PositiveInt = 6


class Experiments(StrictModel):
    """The file experiments.yaml."""

    methods: dict[str, MethodSettings]
    tables: dict[str, TableSettings]
    figures: dict[str, FigureSettings]


LabelSets = dict[str, dict[str, Annotated[list[str], Field(min_length=1)]]]
"""config/label_sets.yaml: each label set maps classes to the expressions that replace their names."""


class Cell(NamedTuple):
    """One number of a table, or one column of a figure."""

    row: str
    column: str
    run: RunSettings
    pretraining: RunSettings | None
    teacher: RunSettings | None
    evaluation: Evaluation
    refinement: Refinement
    metric: str


def table_cells(experiments: Experiments, settings: Settings, label_sets: LabelSets) -> dict[str, list[Cell]]:
    """Return the cells of every table. Raises ValueError that names the cell if it does not fit the settings."""
    return {
        name: [
            _cell(
                f"tables.{name}",
                experiments,
                settings,
                label_sets,
                (row, column),
                (table.cells, column_cells, row_cells),
            )
            for row, row_cells in _expand(f"tables.{name}.rows", table.rows, table.cells, experiments, settings)
            for column, column_cells in _expand(
                f"tables.{name}.columns", table.columns, table.cells, experiments, settings
            )
        ]
        for name, table in experiments.tables.items()
    }


def figure_cells(experiments: Experiments, settings: Settings, label_sets: LabelSets) -> dict[str, list[Cell]]:
    """Return the columns of every figure. Raises ValueError like `table_cells`, and if a figure mixes data sets."""
    cells = {
        name: [
            _cell(f"figures.{name}", experiments, settings, label_sets, ("", column), (figure.cells, column_cells))
            for column, column_cells in _expand(
                f"figures.{name}.columns", figure.columns, figure.cells, experiments, settings
            )
        ]
        for name, figure in experiments.figures.items()
    }
    for name, columns in cells.items():
        _check_figure(f"figures.{name}", experiments.figures[name].kind, columns, settings)
    return cells


def _check_figure(origin: str, kind: str, columns: list[Cell], settings: Settings) -> None:
    datasets = {cell.evaluation.dataset for cell in columns}
    if len(datasets) != 1:
        raise ValueError(f"{origin}: its columns have {len(datasets)} data sets; a figure needs exactly one")
    if len(splits := {cell.evaluation.split for cell in columns}) > 1:
        raise ValueError(f"{origin}: its columns have {len(splits)} splits; a figure needs exactly one")
    if kind in ("expressions", "assignment") and len(columns) > 1:
        raise ValueError(f"{origin}: a figure of kind {kind} shows one run, not {len(columns)}; keep one column")
    of_classes = settings.datasets[datasets.pop()].classes is not None and not columns[0].evaluation.given
    if (kind == "classes") != of_classes:
        raise ValueError(
            f"{origin}: kind classes is for data sets with classes, unless they are given, and only for them; change "
            "the kind or the data set"
        )


def runs_of(cells: Iterable[Cell]) -> dict[str, RunSettings]:
    """Return the runs of the cells and their pretrainings, by name. Raises ValueError if two runs share a name."""
    runs: dict[str, RunSettings] = {}
    for cell in cells:
        for run in filter(None, (cell.pretraining, cell.teacher, cell.run)):
            if runs.setdefault(run.run, run) != run:
                raise ValueError(f"two different runs are called {run.run}; vary keys with different last parts")
    return runs


def excluding(cells: dict[str, list[Cell]], records: Sequence[str]) -> dict[str, list[Cell]]:
    """Return the cells; a box pretraining that excludes images also excludes those of the files `records`."""

    def exclude(run: RunSettings | None) -> RunSettings | None:
        if run is None or not run.excluded_records:
            return run
        return run.model_copy(update={"excluded_records": list(dict.fromkeys([*run.excluded_records, *records]))})

    return {name: [cell._replace(pretraining=exclude(cell.pretraining)) for cell in of] for name, of in cells.items()}


def labels_of(settings: Settings, label_sets: LabelSets, evaluation: Evaluation) -> dict[str, list[str]] | None:
    """Return the expressions of each class; None for a data set without classes."""
    classes = settings.datasets[evaluation.dataset].classes
    words = label_sets[evaluation.labels] if evaluation.labels else {}
    return {name: words.get(name, [name]) for name in classes} if classes and not evaluation.given else None


def _expand(
    origin: str,
    patterns: dict[str, PatternSettings],
    shared: CellSettings,
    experiments: Experiments,
    settings: Settings,
) -> list[tuple[str, CellSettings]]:
    """Return the expanded labels with their settings: those with {method} first, method by method, then the others."""
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


def _check_pattern(origin: str, label: str, pattern: PatternSettings, experiments: Experiments) -> None:
    named = (*(pattern.methods or []), *pattern.without)
    for name in named:
        check_known(name, experiments.methods, f"{origin}: there is no method")
    if "{method}" in label and "{class}" in label:
        raise ValueError(f"{origin}: a label cannot contain both {{method}} and {{class}}; move one to the other axis")
    if named and "{method}" not in label:
        raise ValueError(f"{origin}: methods and without need {{method}} in the label; add it")


def _classes(origin: str, shared: CellSettings, settings: Settings) -> list[str]:
    """Return the classes that {class} stands for."""
    dataset = shared.evaluate or shared.dataset
    classes = settings.datasets[dataset].classes if dataset in settings.datasets else None
    if not classes:
        raise ValueError(f"{origin}: {{class}} needs a data set with classes; set evaluate under cells")
    return classes


def _join(*parts: CellSettings) -> CellSettings:
    """Merge the parts; later parts override earlier ones, and `options` and `settings` are merged key by key."""
    joined: dict[str, Any] = {}
    for part in parts:
        values = part.model_dump(exclude_none=True, exclude={"methods", "without"})
        merged = {key: joined.get(key, {}) | values[key] for key in ("options", "settings")}
        joined |= values | merged
    return CellSettings(**joined)


def _cell(
    origin: str,
    experiments: Experiments,
    settings: Settings,
    label_sets: LabelSets,
    labels: tuple[str, str],
    parts: tuple[CellSettings, ...],
) -> Cell:
    cell = _join(*parts)
    origin = f"{origin}: {', '.join(filter(None, labels))}"
    supervision = cell.supervision or "weak"
    if cell.dataset is None or (supervision != "full" and cell.method is None):
        raise ValueError(f"{origin}: the {'method' if cell.dataset else 'dataset'} is missing; add it")
    evaluation_dataset = cell.evaluate or cell.dataset
    for dataset in (cell.dataset, evaluation_dataset):
        check_known(dataset, settings.datasets, f"{origin}: the configuration has no data set")
    if cell.method is not None:
        check_known(cell.method, experiments.methods, f"{origin}: there is no method")
    if cell.labels is not None:
        check_known(cell.labels, label_sets, f"{origin}: there is no label set")
        _check_labels(f"{origin}: the label set {cell.labels}", label_sets[cell.labels], evaluation_dataset, settings)
    classes, given = settings.datasets[evaluation_dataset].classes, bool(cell.given)
    if given and (not classes or cell.labels):
        raise ValueError(f"{origin}: given is for data sets with classes, asked by their names; remove it or labels")
    if supervision == "full" and classes and not given:
        raise ValueError(f"{origin}: full supervision does not score classes; evaluate on a data set without classes")
    if supervision == "full" and cell.options:
        raise ValueError(f"{origin}: options: full supervision has no pooling; remove the options")
    with prefix_errors(origin):
        pooling = experiments.methods[cell.method].with_options(cell.options) if cell.method else None
        pooling = None if supervision == "full" else pooling
        run = make_run(settings, cell.dataset, supervision, pooling, cell.settings)
        teacher = make_run(settings, cell.dataset, "weak", pooling, cell.settings) if run.teacher else None
        start = vary(settings, cell.settings).training.weak.pretraining if run.pretraining else None
        pretraining = pretraining_run(settings, start, cell.settings) if start else None
    if hasattr(run.model.text_encoder, "classes") and (evaluation_dataset != cell.dataset or cell.labels):
        raise ValueError(
            f"{origin}: class encoding knows only its training classes; set model.text_encoder to language_model"
        )
    split = cell.split or settings.datasets[evaluation_dataset].evaluation
    evaluation = Evaluation(evaluation_dataset, split, bool(cell.multiscale), cell.labels, given)
    threshold = settings.inference.threshold if cell.threshold == "calibrated" else cell.threshold or "fixed"
    if threshold == "oracle" and classes and not given:
        raise ValueError(f"{origin}: threshold: the oracle cuts masks of records; choose another for label maps")
    crf = "crf" if cell.crf is True else cell.crf or None
    return Cell(*labels, run, pretraining, teacher, evaluation, Refinement(threshold, crf), cell.metric or "mIoU")


def _check_labels(origin: str, label_set: dict[str, list[str]], dataset: str, settings: Settings) -> None:
    classes = settings.datasets[dataset].classes or []
    if not set(label_set) & set(classes):
        raise ValueError(f"{origin} has none of {dataset}'s classes; add them")
    words = [word for name in classes for word in label_set.get(name, [name])]
    for word in words:
        if words.count(word) > 1 or not clean_expression(word):
            raise ValueError(f"{origin} has an empty or repeated expression, {word!r}; correct it")
