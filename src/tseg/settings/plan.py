"""The plan of a configuration: its runs, cells and evaluations, and the files and options of every step."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal, cast

from tseg.model.pooling import POOLINGS
from tseg.settings.catalogue import Catalogue, check_sources
from tseg.settings.code import code_of, mask_code, shapes_code
from tseg.settings.encoders import UsedEncoders, used_encoders
from tseg.settings.encodings import PatchEncoding, TextEncoding, WholeViews, crop_views
from tseg.settings.experiments import (
    Cell,
    Experiments,
    LabelSets,
    excluding,
    figure_cells,
    labels_of,
    runs_of,
    table_cells,
)
from tseg.settings.layout import CellLayout, TableLayout
from tseg.settings.published import read_published
from tseg.settings.run_schema import RunSettings
from tseg.settings.runs import REFINEMENTS, Evaluation
from tseg.settings.schema import (
    ClassEncodingSettings,
    DatasetSettings,
    ImageEncoderSettings,
    LanguageModelSettings,
    Settings,
    records_path,
)
from tseg.settings.validation import parse, prefix_errors, read_yaml

LOSSES = {
    "weak": "weak supervision",
    "full": "full supervision",
    "boxes": "box pretraining",
    "pseudo": "supervision by pseudo labels",
}
"""Supervision to the title of its panel of learning curves: each supervision minimises its own loss."""


class Plan:
    """The runs, files and options of a configuration. Methods that return options of a command return them by name."""

    def __init__(self, values: Mapping[str, Any], origin: str) -> None:
        """Check a whole configuration and the files that it names.

        `origin` names the configuration in messages. Raises ValueError, which names the file, the key and the fix.
        """
        self.settings: Settings = parse(Settings, dict(values), origin)
        self.experiments: Experiments = self._read_named(Experiments, "experiments")
        self.label_sets: LabelSets = self._read_named(LabelSets, "label_sets")
        self.catalogue: Catalogue = self._read_named(Catalogue, "sources")
        self.raw_dir: str = f"{self.settings.data_dir}/raw"
        self.token_dir: str = f"{self.settings.data_dir}/tokens"
        with prefix_errors(origin):
            check_sources(self.settings, self.catalogue)
        with prefix_errors(self.settings.experiments):
            self.tables: dict[str, list[Cell]] = table_cells(self.experiments, self.settings, self.label_sets)
            self.figures: dict[str, list[Cell]] = figure_cells(self.experiments, self.settings, self.label_sets)
            cells = [*chain(*self.tables.values(), *self.figures.values())]
            scored = {cell.evaluation.name: cell.evaluation for cell in cells}
            self.evaluation_records: list[str] = list(dict.fromkeys(map(self._records, scored.values())))
            """Records of every evaluation that a table or a figure shows."""
            # A table may evaluate on splits that the settings of its data set do not name.
            self.tables = excluding(self.tables, self.evaluation_records)
            self.figures = excluding(self.figures, self.evaluation_records)
            self.cells: list[Cell] = [*chain(*self.tables.values(), *self.figures.values())]
            self.runs: dict[str, RunSettings] = runs_of(self.cells)
        read_published(Path(self.settings.published), map(self.layout, self.tables))  # checks it
        with prefix_errors(origin):
            _check_gpus(self.runs, self.settings.resources.train.gpu)
        self.encoders: dict[str, UsedEncoders] = {
            run: used_encoders(self.settings, self.runs[run]) for run in self.runs
        }
        """The encoders of each run, as `tseg check` reads them."""
        self.trained: set[str] = {run.dataset for run in self.runs.values()}
        """Data sets that a run is trained on."""
        students = {run.dataset for run in self.runs.values() if run.teacher}
        self.taught: dict[str, Evaluation] = {dataset: self._training_split(dataset) for dataset in sorted(students)}
        """Data set to the prediction of a teacher for its training images."""
        taught = {evaluation.name: evaluation for evaluation in self.taught.values()}
        self.evaluations: dict[str, Evaluation] = scored | taught
        self.encodings: dict[str, PatchEncoding | TextEncoding] = self._encodings()
        """Name of a file of tokens, below `token_dir` and without its suffix, to what it holds."""
        with prefix_errors(origin):
            _check_names([*self.settings.datasets, *self.tables, *self.figures, *self.evaluations, *self.runs])

    @classmethod
    def read(cls, paths: Iterable[Path | str]) -> "Plan":
        """Read configuration files and merge them in order, as `snakemake --configfile` does: later values win."""
        paths = list(paths)
        values: dict[str, Any] = {}
        for path in paths:
            if not isinstance(later := read_yaml(Path(path), "name an existing file"), dict):
                raise ValueError(f"{path} holds no keys; write the configuration as a mapping of keys to values")
            values = _merge(values, later)
        return cls(values, " + ".join(map(str, paths)))

    def _read_named(self, schema: Any, key: str) -> Any:
        """Read the file that the configuration names under `key`."""
        path = getattr(self.settings, key)
        return parse(schema, read_yaml(Path(path), f"set the key {key} to an existing file"), path)

    def raw_inputs(self, dataset: str) -> list[str]:
        """The inputs of a data set's records: the manifests of its sources, or its annotation files.

        Raises ValueError if there is neither.
        """
        settings = self.settings.datasets[dataset]
        found = [f"{self.raw_dir}/{source}.json" for source in settings.sources] or _annotation_files(settings)
        if not found:
            raise ValueError(
                f"datasets.{dataset}.annotations: {settings.annotations} holds no annotation file; put them there, or "
                "name the sources that provide them"
            )
        return found

    def _training_split(self, dataset: str) -> Evaluation:
        """A prediction for the training images of a data set, each asked for its own expressions."""
        settings = self.settings.datasets[dataset]
        return Evaluation(dataset, settings.train, given=settings.classes is not None)

    def _encodings(self) -> dict[str, PatchEncoding | TextEncoding]:
        """Every encoding that a run or a prediction reads, by file."""
        found = [*map(self.crop_encoding, self.runs), *map(self.text_encoding, self.runs)]
        predicted = {(cell.run.run, cell.evaluation.name) for cell in self.cells}
        predicted |= {(run.teacher, self.taught[run.dataset].name) for run in self.runs.values() if run.teacher}
        found += [self.view_encoding(run, evaluation) for run, evaluation in sorted(predicted)]
        return dict(filter(None, found))

    def crop_encoding(self, run: str) -> tuple[str, PatchEncoding] | None:
        """The tokens of a run's training crops: file and settings; None if it computes them itself."""
        settings, training = self.runs[run].model.image_encoder, self.runs[run].training
        views = crop_views(training)
        if not settings.is_fixed or views is None:
            return None
        encoding = PatchEncoding(records=self.runs[run].records, encoder=settings, views=views)
        return _encoding_name(encoding), encoding

    def view_encoding(self, run: str, evaluation: str) -> tuple[str, PatchEncoding] | None:
        """The tokens of a run's images of an evaluation, as `crop_encoding`."""
        settings = self.runs[run].model.image_encoder
        if not settings.is_fixed or self.settings.inference.window:
            return None
        views = self._whole_views(run, evaluation)
        encoding = PatchEncoding(records=self.records(evaluation), encoder=settings, views=views)
        return _encoding_name(encoding), encoding

    def text_encoding(self, run: str) -> tuple[str, TextEncoding] | None:
        """The tokens of a run's training expressions, as `crop_encoding`."""
        settings, training = self.runs[run].model.text_encoder, self.runs[run].training
        if isinstance(settings, ClassEncodingSettings) or not settings.is_fixed:
            return None
        mirrored = training.flip and training.flip_words == "swap"
        encoding = TextEncoding(records=self.runs[run].records, encoder=settings, mirrored=mirrored)
        return _encoding_name(encoding), encoding

    def tokens(self, run: str, evaluation: str | None = None) -> dict[str, str]:
        """The options `patches` and `texts` of a training, or `patches` of a prediction, for its frozen encoders."""
        found = {
            "patches": self.crop_encoding(run) if evaluation is None else self.view_encoding(run, evaluation),
            "texts": self.text_encoding(run) if evaluation is None else None,
        }
        return {name: f"{self.token_dir}/{encoding[0]}.parquet" for name, encoding in found.items() if encoding}

    def records(self, evaluation: str) -> str:
        """The records of an evaluation."""
        return self._records(self.evaluations[evaluation])

    def _records(self, evaluation: Evaluation) -> str:
        return records_path(self.settings, evaluation.dataset, evaluation.split)

    @property
    def training_records(self) -> list[str]:
        """Training records of every data set that a run is trained on."""
        datasets = self.settings.datasets
        return [records_path(self.settings, name, datasets[name].train) for name in datasets if name in self.trained]

    def start(self, run: str, seed: int | str) -> list[str]:
        """The pretrained model that a run starts from; empty if there is none."""
        pretraining = self.runs[run].pretraining
        return [f"{self.seed_dir(pretraining, seed)}/model.safetensors"] if pretraining else []

    def pseudo_labels(self, run: str, seed: int | str) -> list[str]:
        """The pseudo labels that supervise a run; empty if there are none."""
        folder = f"{self.settings.results_dir}/pseudo_labels"
        return [f"{folder}/{run}/seed{seed}.parquet"] if self.runs[run].teacher else []

    def taught_predictions(self, run: str, seed: int | str) -> str:
        """The predictions of a run's teacher for its training images."""
        student = self.runs[run]
        folder = f"{self.settings.results_dir}/predictions/{student.teacher}/seed{seed}"
        return f"{folder}/{self.taught[student.dataset].name}.parquet"

    def pseudo_label_options(self, run: str) -> dict[str, Any]:
        """The options that turn the predictions of a run's teacher into pseudo labels."""
        settings = self.runs[run].training.pseudo_labels
        assert settings is not None, "make_run gives every student its pseudo labels"
        teacher = self.runs[run].teacher
        assert teacher is not None
        options = self._activation_options(teacher) | settings.model_dump() | {"crf": settings.crf or "none"}
        return options | self._backend_option(settings.crf)

    def seed_dir(self, run: str, seed: int | str) -> str:
        """The folder of a trained model."""
        return f"{self.settings.results_dir}/runs/{run}/seed{seed}"

    def encoder_weights(self, run: str) -> list[str]:
        """The inputs of `weights` for both of a run's encoders."""
        model = self.runs[run].model
        return list(dict.fromkeys([*self.weights(model.image_encoder), *self.weights(model.text_encoder)]))

    def weights(self, encoder: ImageEncoderSettings | LanguageModelSettings | ClassEncodingSettings) -> list[str]:
        """The manifest of the source that holds the weights of an encoder, or their own local files.

        Empty if the weights are random or on the hub.
        """
        if isinstance(encoder, ClassEncodingSettings) or encoder.weights is None:
            return []
        for source in self.catalogue:
            if f"{encoder.weights}/".startswith(f"{self.raw_dir}/{source}/"):
                return [f"{self.raw_dir}/{source}.json"]
        local = Path(encoder.weights)
        files = [local] if local.is_file() else sorted(file for file in local.glob("*") if file.is_file())
        return list(map(str, files))

    def _whole_views(self, run: str, evaluation: str) -> WholeViews:
        """The views of an image that a run predicts."""
        inference, several = self.settings.inference, self.evaluations[evaluation].multiscale
        resolutions = inference.resolution
        resolution = resolutions.weak if self.runs[run].supervision == "weak" else resolutions.full
        return WholeViews(resolution=resolution, scales=inference.multiscale if several else [1.0], flip=several)

    def views(self, run: str, evaluation: str) -> dict[str, Any]:
        """The options that say how a prediction sees images, without those that do not apply."""
        views, window = self._whole_views(run, evaluation), self.settings.inference.window
        options: dict[str, Any] = {"resolution": views.resolution, "scales": views.scales}
        options |= ({"flip": True} if views.flip else {}) | ({"window": window} if window else {})
        precision = self.settings.inference.precision
        return options | ({} if precision == "float32" else {"precision": precision})

    def labels(self, evaluation: str) -> dict[str, Any]:
        """The option `labels`, class to words, for a data set with classes; empty for another."""
        labels = labels_of(self.settings, self.label_sets, self.evaluations[evaluation])
        return {"labels": labels} if labels else {}

    def mask_options(self, run: str, evaluation: str, refinement: str) -> dict[str, Any]:
        """The options that turn similarities into masks, without those that do not apply."""
        how, inference, classes = REFINEMENTS[refinement], self.settings.inference, bool(self.labels(evaluation))
        options = self._activation_options(run)
        if options and classes and how.crf and inference.crf_background:
            options["crf_background"] = inference.crf_background
        if classes:
            options["confidence"] = inference.confidence
        crf = inference.crf if how.crf == "crf" else how.crf or "none"
        return options | {"threshold": how.threshold, "crf": crf} | self._backend_option(crf)

    def _backend_option(self, crf: str | None) -> dict[str, str]:
        """The option `crf_backend`, if it applies to the refinement `crf`."""
        backend = self.settings.inference.crf_backend
        return {} if backend == "lattice" or crf in (None, "none", "pamr") else {"crf_backend": backend}

    def _activation_options(self, run: str) -> dict[str, Any]:
        """The options `background` and `overlapping` of a pooling without masks; empty for another."""
        pooling, inference = self.runs[run].pooling, self.settings.inference
        if pooling is None or POOLINGS[pooling.name].masks:
            return {}
        return {"background": inference.background} | ({} if inference.exclusive_activations else {"overlapping": True})

    def cell_file(self, cell: Cell, kind: Literal["predictions", "masks", "scores"], seed: int) -> str:
        """The file of a cell: its predictions or masks (.parquet), or the summary of its scores (.json)."""
        folder = f"{self.settings.results_dir}/{kind}/{cell.run.run}/seed{seed}"
        refinement = "" if kind == "predictions" else f"-{cell.refinement.name}"
        return f"{folder}/{cell.evaluation.name}{refinement}.{'json' if kind == 'scores' else 'parquet'}"

    def summaries(self, table: str) -> list[str]:
        """The distinct summaries of a table's cells, one per seed."""
        return list(dict.fromkeys(path for cell in self.tables[table] for path in self._cell_summaries(cell)))

    def _cell_summaries(self, cell: Cell) -> list[str]:
        return [self.cell_file(cell, "scores", seed) for seed in self.settings.seeds]

    def prepare_settings(self, dataset: str, split: str) -> dict[str, Any]:
        """The settings of a data set that decide the records of a split, as JSON has them."""
        settings = self.settings.datasets[dataset]
        published = {name: counts for name, counts in settings.published.items() if name == split}
        changed = {"train": split, "evaluation": split, "published": published}
        return settings.model_copy(update=changed).model_dump(mode="json")

    def mask_code(self, run: str, evaluation: str, refinement: str) -> str:
        """The code that makes masks."""
        options = self.mask_options(run, evaluation, refinement)
        has_classes = bool(self.labels(evaluation))
        return mask_code(
            "refine",
            self.runs[run],
            threshold=options["threshold"],
            crf=options["crf"],
            crf_backend=self.settings.inference.crf_backend,
            has_classes=has_classes,
        )

    def pseudo_label_code(self, run: str) -> str:
        """The code that makes the pseudo labels of a run."""
        settings, teacher = self.runs[run].training.pseudo_labels, self.runs[run].teacher
        assert settings is not None, "make_run gives every student its pseudo labels"
        assert teacher is not None
        of_teacher = self.runs[teacher]
        return mask_code(
            "pseudo_label",
            of_teacher,
            threshold=settings.threshold,
            crf=settings.crf,
            crf_backend=self.settings.inference.crf_backend,
            has_classes=False,
        )

    def score_code(self, evaluation: str) -> str:
        """The code that scores masks."""
        return code_of("evaluate", {"truth": "classes" if self.labels(evaluation) else "records"})

    def fetch_code(self, source: str) -> str:
        """The code that draws a source; none for downloaded files, whose checksums say what they are."""
        return shapes_code() if self.catalogue[source].kind == "shapes" else ""

    def layout(self, table: str) -> TableLayout:
        """A table as `tseg tabulate` reads it."""
        described = self.experiments.tables[table].model_dump(include={"number", "title", "corner", "best", "note"})
        cells = [
            CellLayout(row=cell.row, column=cell.column, metric=cell.metric, summaries=self._cell_summaries(cell))
            for cell in self.tables[table]
        ]
        rows = list(dict.fromkeys(cell.row for cell in cells))
        columns = list(dict.fromkeys(cell.column for cell in cells))
        return TableLayout(table=table, rows=rows, columns=columns, cells=cells, **described)

    def table_runs(self, table: str) -> dict[str, RunSettings]:
        """Name to run, for the runs of a table and the pretrainings that they start from."""
        return runs_of(self.tables[table])

    def curves(self, table: str) -> dict[str, str]:
        """The training histories of a table's runs with the first seed, each with the title of its panel."""
        return {
            f"{self.seed_dir(name, self.settings.seeds[0])}/history.csv": LOSSES[run.supervision]
            for name, run in self.table_runs(table).items()
        }

    def drawn_files(self, figure: str) -> list[str]:
        """The files that a figure draws, with the first seed: masks, or predictions for the assignment of patches."""
        kind = "predictions" if self.experiments.figures[figure].kind == "assignment" else "masks"
        return [self.cell_file(cell, kind, self.settings.seeds[0]) for cell in self.figures[figure]]

    def drawn_records(self, figure: str) -> str:
        """The records that a figure shows."""
        return self.records(self.figures[figure][0].evaluation.name)

    def drawn_choice(self, figure: str) -> dict[str, Any]:
        """The options of a figure: column labels, the classes that its label set renames, seed and number of panels."""
        described, cells = self.experiments.figures[figure], self.figures[figure]
        if described.kind == "assignment":
            return {}
        named = described.kind in ("masks", "classes")
        renamed = {name for cell in cells if cell.evaluation.labels for name in self.label_sets[cell.evaluation.labels]}
        classes = self.settings.datasets[cells[0].evaluation.dataset].classes or []
        return {
            "label": [cell.column for cell in cells] if named else [],
            "only": [name for name in classes if name in renamed],
            "seed": described.seed,
            "num_panels": described.num_panels,
        }


def _encoding_name(encoding: PatchEncoding | TextEncoding) -> str:
    """A name for an encoding: data set, split, kind and a hash of its settings."""
    records = Path(encoding.records)
    digest = hashlib.sha256(encoding.model_dump_json().encode()).hexdigest()[:8]
    return f"{records.parent.name}/{records.stem}-{encoding.kind}-{digest}"


def _annotation_files(dataset: DatasetSettings) -> list[str]:
    """The annotation files in a data set's folder; images in the same folder are left out."""
    patterns = {"voc": ["ImageSets/Segmentation/*.txt"], "pairs": ["*.csv", "*.parquet", "*.json"]}
    found = [
        path for pattern in patterns.get(dataset.format, ["*.*"]) for path in Path(dataset.annotations).glob(pattern)
    ]
    return [str(path) for path in sorted(found) if path.is_file()]


def _merge(values: Any, later: Any) -> Any:
    """Merge two mappings key by key, recursively; for any other values, return `later`."""
    if not (isinstance(values, dict) and isinstance(later, dict)):
        return later
    before, after = cast(dict[str, Any], values), cast(dict[str, Any], later)
    return before | {key: _merge(before.get(key), value) for key, value in after.items()}


def _check_names(names: Iterable[str]) -> None:
    """Raise ValueError for a name that cannot be a part of Snakemake's paths and of command lines."""
    for name in names:
        if name.startswith("-") or re.search(r"[{}\x00-\x1f\x7f]", name):
            raise ValueError(
                f"the name {name!r} starts with - or has a brace or a control character; rename the data set, table, "
                "figure, encoder or label set that it names"
            )


def _check_gpus(runs: Mapping[str, RunSettings], number: int) -> None:
    """Raise ValueError if a batch has fewer images than GPUs that share it."""
    for name, run in runs.items():
        if run.training.batch_size < number:
            raise ValueError(
                f"resources.train.gpu: {number} GPUs cannot share the {run.training.batch_size} images of a batch of "
                f"{name}; choose at most as many"
            )
