"""A run is one training, with a name and complete settings. An evaluation is what a run is evaluated on, and how."""

import hashlib
from itertools import product
from typing import Any, Literal, NamedTuple, cast, get_args

from tseg.model.pooling import POOLINGS
from tseg.settings.run_schema import PoolingSettings, RunModelSettings, RunSettings, RunTrainingSettings
from tseg.settings.schema import (
    ClassEncodingSettings,
    LanguageModelSettings,
    RefinementName,
    Settings,
    Supervision,
    ThresholdRule,
    records_path,
)
from tseg.settings.validation import hint, parse

MAX_NAME = 150
"""Characters of a run's name. A folder's may have 255 bytes."""
VARIED = ("model", "image_encoders", "language_model", "training")
"""Sections of the settings that a run may override. Options of its pooling are overridden separately."""
OTHER_TRAININGS = ("training.weak.", "training.full.")
"""Prefixes of keys that do not affect box pretraining."""


class Evaluation(NamedTuple):
    """What a run is evaluated on, and how."""

    dataset: str
    split: str
    multiscale: bool = False
    labels: str | None = None
    """A label set, for a data set with classes."""
    given: bool = False
    """Data sets with classes: whether the classes of each image are given, so that each has a mask of its own."""

    @property
    def name(self) -> str:
        """Data set, split and anything beyond plain inference, such as voc-val+multiscale."""
        return (
            f"{self.dataset}-{self.split}"
            + ("+given" if self.given else "")
            + ("+multiscale" if self.multiscale else "")
            + (f"+labels={self.labels}" if self.labels else "")
        )


class Refinement(NamedTuple):
    """How the similarities of an evaluation become masks."""

    threshold: ThresholdRule = "fixed"
    crf: RefinementName | Literal["crf"] | None = None
    """crf: the refinement that the configuration names."""

    @property
    def name(self) -> str:
        """What differs from plain masks, such as halfway+crf; plain if nothing does.

        It has no hyphen, which separates it from the evaluation in the names of files.
        """
        return "+".join(filter(None, ["" if self.threshold == "fixed" else self.threshold, self.crf])) or "plain"


REFINEMENTS = {
    refinement.name: refinement
    for refinement in map(Refinement._make, product(get_args(ThresholdRule), (None, "crf", *get_args(RefinementName))))
}
"""Every refinement by name."""


def make_run(
    settings: Settings,
    dataset: str,
    supervision: Supervision,
    pooling: PoolingSettings | None,
    varied: dict[str, Any],
) -> RunSettings:
    """Return the run that trains on `dataset`, with only the settings that affect it.

    `pooling` is None for full supervision and box pretraining. `varied` overrides settings, by dotted key. The run's
    name lists the overrides that change the run, and the options of the pooling that are not its defaults. Raises
    ValueError for an unknown key or an invalid value.
    """
    run = _unnamed_run(settings, dataset, supervision, pooling, varied)
    # Keys that do not affect the run stay out of its name, such as targets under full supervision.
    differing = {
        key: value
        for key, value in _differing(settings, varied).items()
        if run != _unnamed_run(settings, dataset, supervision, pooling, {k: varied[k] for k in varied if k != key})
    }
    if pooling:
        differing |= {f"options.{key}": value for key, value in pooling.changed_options().items()}
    suffix = "".join(f"+{key.rsplit('.', 1)[-1]}={_in_name(key, value)}" for key, value in differing.items())
    return run.model_copy(update={"run": _short(run.run + suffix)})


def _unnamed_run(
    settings: Settings,
    dataset: str,
    supervision: Supervision,
    pooling: PoolingSettings | None,
    varied: dict[str, Any],
) -> RunSettings:
    """Return the run, named by just its data set and its pooling or supervision."""
    base, settings = settings, vary(settings, varied)
    training = getattr(settings.training, supervision)
    if training is None:
        raise ValueError(f"training.{supervision} is missing; add it")
    for_dataset = {
        key: _for_dataset(f"training.{supervision}.{key}", getattr(training, key), dataset)
        for key in ("iterations", "batch_size")
    }
    values = training.model_dump(exclude={"pretraining", "exclude_evaluation"})
    if supervision == "weak" and training.same_image_weight:
        assert pooling is not None, "weak supervision has a pooling"
        _check_overlap(pooling)
    if supervision == "pseudo" and settings.training.weak.pretraining:
        raise ValueError(
            "training.weak.pretraining: self-training knows no boxes, and its teacher would; set it to null in the "
            "settings of this row"
        )
    excludes = supervision == "boxes" and training.exclude_evaluation
    start = training.pretraining if supervision == "weak" else None
    return RunSettings(
        run="-".join(
            [dataset, *([pooling.name] if pooling else []), *([] if supervision == "weak" else [supervision])]
        ),
        dataset=dataset,
        supervision=supervision,
        records=records_path(settings, dataset, settings.datasets[dataset].train),
        excluded_records=evaluation_records(settings) if excludes else [],
        pretraining=pretraining_run(base, start, varied).run if start else None,
        teacher=make_run(base, dataset, "weak", pooling, varied).run if supervision == "pseudo" else None,
        model=_run_model(settings, dataset),
        pooling=pooling,
        training=RunTrainingSettings(**{"targets": None, "pseudo_labels": None} | values | for_dataset),
    )


def _for_dataset(key: str, value: int | dict[str, int], dataset: str) -> int:
    """The value for a data set of a setting that is one number or a number per data set."""
    if isinstance(value, int):
        return value
    if dataset not in value:
        raise ValueError(f"{key} lacks the data set {dataset}; add it")
    return value[dataset]


def _check_overlap(pooling: PoolingSettings) -> None:
    """Raise ValueError unless the pooling has masks that may overlap, which `same_image_weight` pushes apart."""
    overlapping = [name for name, other in POOLINGS.items() if other.masks and not other.exclusive]
    if pooling.name not in overlapping:
        raise ValueError(
            f"training.weak.same_image_weight: the pooling {pooling.name} has no masks that could overlap; set it only "
            f"in the settings of rows with {' or '.join(overlapping)}"
        )


def pretraining_run(settings: Settings, dataset: str, varied: dict[str, Any]) -> RunSettings:
    """Return the box pretraining on `dataset` for a run with the overrides `varied`."""
    relevant = {key: value for key, value in varied.items() if not key.startswith(OTHER_TRAININGS)}
    return make_run(settings, dataset, "boxes", None, relevant)


def evaluation_records(settings: Settings) -> list[str]:
    """Return the paths of the records of every evaluation split."""
    return [records_path(settings, name, dataset.evaluation) for name, dataset in settings.datasets.items()]


def vary(settings: Settings, varied: dict[str, Any]) -> Settings:
    """Return the settings with the overrides `varied`, by dotted key. Raises ValueError for an unknown key."""
    if not varied:
        return settings
    values = settings.model_dump()
    for key, value in varied.items():
        *parents, last = key.split(".")
        if parents[:1] not in ([part] for part in VARIED):
            raise ValueError(f"settings: {key} does not determine a run's weights; vary keys of {', '.join(VARIED)}")
        node = values
        for parent in parents:
            child = node.get(parent)
            if not isinstance(child, dict):
                raise ValueError(f"settings: the configuration has no key {key}; {parent} is not a group of keys")
            node = cast(dict[str, Any], child)
        if last not in node:
            raise ValueError(f"settings: the configuration has no key {key}{hint(last, node)}")
        node[last] = value
    return parse(Settings, values, "settings of a table")


def _differing(settings: Settings, varied: dict[str, Any]) -> dict[str, Any]:
    """Return the overrides that change a value, as key to new value, in alphabetical order."""
    base, changed = settings.model_dump(), vary(settings, varied).model_dump()
    differing: dict[str, Any] = {}
    for key in sorted(varied):
        before, after = base, changed
        for part in key.split("."):
            before, after = before[part], after[part]
        if before != after:
            differing[key] = after
    return differing


def _short(name: str) -> str:
    """A run's name, as a folder can have it: of a very long one, the beginning and a hash."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 9]}+{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _in_name(key: str, value: Any) -> str:
    """Return a value as it appears in a run's name."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if not set(text).isdisjoint("/ {}"):
        raise ValueError(f"settings: {key}: {value!r} cannot be part of a run's name; vary a number or a word")
    return text


def _run_model(settings: Settings, dataset: str) -> RunModelSettings:
    model, classes = settings.model, settings.datasets[dataset].classes
    text_encoder: LanguageModelSettings | ClassEncodingSettings = settings.language_model.as_used()
    if model.text_encoder == "classes":
        if not classes:
            raise ValueError(f"model.text_encoder: the data set {dataset} has no classes; choose language_model")
        if model.class_features is None:
            raise ValueError(
                "model.class_features is missing; text_encoder: classes needs the size of a class's vector"
            )
        text_encoder = ClassEncodingSettings(classes=classes, num_features=model.class_features)
    return RunModelSettings(
        image_encoder=settings.image_encoders[model.image_encoder],
        text_encoder=text_encoder,
        embed_dim=model.embed_dim,
        patch_hidden=model.patch_hidden,
        tau=model.tau,
    )
