"""Runs: what a cell of a table trains, with complete settings and a name; and evaluations of runs."""

from typing import Any, NamedTuple, cast

from tseg.settings.schema import (
    ClassEncodingSettings,
    LanguageModelSettings,
    PoolingSettings,
    RunModelSettings,
    RunSettings,
    RunTrainingSettings,
    Settings,
    Supervision,
    records_path,
)
from tseg.settings.validation import hint, parse

VARIED = ("model", "image_encoders", "language_model", "training")
"""The settings that a run may vary: those that determine its weights, its pooling aside."""
NOT_OF_BOXES = ("training.weak.", "training.full.")
"""Prefixes of the keys that do not concern box pretraining."""


class Evaluation(NamedTuple):
    """How a run is evaluated."""

    dataset: str
    split: str
    multiscale: bool = False
    labels: str | None = None
    """A label set, for a data set with classes."""

    @property
    def name(self) -> str:
        """Data set, split and what differs from plain inference, such as voc-val+multiscale."""
        return (
            f"{self.dataset}-{self.split}"
            + ("+multiscale" if self.multiscale else "")
            + (f"+labels={self.labels}" if self.labels else "")
        )


def make_run(
    settings: Settings,
    dataset: str,
    supervision: Supervision,
    pooling: PoolingSettings | None,
    varied: dict[str, Any],
) -> RunSettings:
    """Return the run that trains on `dataset`, with only the settings that concern it.

    `pooling` is given for weak supervision only. `varied` overrides the settings, by dotted keys. The name of the run
    lists the overrides that change it, and the options of the pooling that are not its defaults. Raises ValueError for
    an unknown key or an invalid value.
    """
    run = _unnamed_run(settings, dataset, supervision, pooling, varied)
    # A key that does not concern the run stays out of its name: full supervision has no targets.
    differing = {
        key: value
        for key, value in _differing(settings, varied).items()
        if run != _unnamed_run(settings, dataset, supervision, pooling, {k: varied[k] for k in varied if k != key})
    }
    if pooling:
        differing |= {f"options.{key}": value for key, value in pooling.changed_options().items()}
    suffix = "".join(f"+{key.rsplit('.', 1)[-1]}={_in_name(key, value)}" for key, value in differing.items())
    return run.model_copy(update={"run": run.run + suffix})


def _unnamed_run(
    settings: Settings,
    dataset: str,
    supervision: Supervision,
    pooling: PoolingSettings | None,
    varied: dict[str, Any],
) -> RunSettings:
    """Return the run, named by its data set and its pooling or supervision alone."""
    scale, settings = settings, vary(settings, varied)
    training = getattr(settings.training, supervision)
    for key in ("iterations", "batch_size"):
        if dataset not in getattr(training, key):
            raise ValueError(f"training.{supervision}.{key} lacks the data set {dataset}; add it")
    own = {"iterations": training.iterations[dataset], "batch_size": training.batch_size[dataset]}
    values = training.model_dump(exclude={"pretraining", "exclude_evaluation"})
    excludes = supervision == "boxes" and training.exclude_evaluation
    start = training.pretraining if supervision == "weak" else None
    return RunSettings(
        run=f"{dataset}-{pooling.name if pooling else supervision}",
        dataset=dataset,
        supervision=supervision,
        records=records_path(settings, dataset, settings.datasets[dataset].train),
        excluded_records=evaluation_records(settings) if excludes else [],
        pretraining=pretraining_run(scale, start, varied).run if start else None,
        model=_run_model(settings, dataset),
        pooling=pooling,
        training=RunTrainingSettings(**{"targets": None} | values | own),
    )


def pretraining_run(settings: Settings, dataset: str, varied: dict[str, Any]) -> RunSettings:
    """Return the box pretraining on `dataset` for the run with the overrides `varied`."""
    concerning = {key: value for key, value in varied.items() if not key.startswith(NOT_OF_BOXES)}
    return make_run(settings, dataset, "boxes", None, concerning)


def evaluation_records(settings: Settings) -> list[str]:
    """Return the paths of the records of every evaluation split."""
    return [records_path(settings, name, dataset.evaluation) for name, dataset in settings.datasets.items()]


def vary(settings: Settings, varied: dict[str, Any]) -> Settings:
    """Return the settings with the overrides `varied`, by dotted keys. Raises ValueError for an unknown key."""
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
    """Return the new values of the overrides that differ from the settings, by key in alphabetical order."""
    scale, other = settings.model_dump(), vary(settings, varied).model_dump()
    differing: dict[str, Any] = {}
    for key in sorted(varied):
        before, after = scale, other
        for part in key.split("."):
            before, after = before[part], after[part]
        if before != after:
            differing[key] = after
    return differing


def _in_name(key: str, value: Any) -> str:
    """Return a value as part of a run's name."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if not set(text).isdisjoint("/ {}"):
        raise ValueError(f"settings: {key}: {value!r} cannot be part of a run's name; vary a number or a word")
    return text


def _run_model(settings: Settings, dataset: str) -> RunModelSettings:
    model, classes = settings.model, settings.datasets[dataset].classes
    text_encoder: LanguageModelSettings | ClassEncodingSettings = settings.language_model
    if model.text_encoder == "classes":
        if not classes:
            raise ValueError(f"model.text_encoder: the data set {dataset} has no classes; choose language_model")
        text_encoder = ClassEncodingSettings(classes=classes, num_features=settings.language_model.hidden_size)
    return RunModelSettings(
        image_encoder=settings.image_encoders[model.image_encoder],
        text_encoder=text_encoder,
        embed_dim=model.embed_dim,
        tau=model.tau,
    )
