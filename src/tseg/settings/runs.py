"""Which run a description asks for, complete and by name; and what it is evaluated on."""

from typing import Any, NamedTuple

from tseg.model.pooling import POOLINGS
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

VARIED = ("model", "image_encoders", "language_model", "weighting", "training")
"""What a run may have of its own: whatever decides its weights."""
NOT_OF_BOXES = ("weighting.", "training.weak.", "training.full.")
"""Keys that do not concern box pretraining."""


class Evaluation(NamedTuple):
    """What a run is asked: the records of a data set's evaluation split, and how."""

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
    settings: Settings, dataset: str, supervision: Supervision, pooling: str | None, varied: dict[str, Any]
) -> RunSettings:
    """The run that trains on `dataset`; it holds nothing that does not concern it.

    `pooling` is that of weak supervision. `varied` has dotted keys of the settings with the values that this run has in
    their place; those that differ from the scale's are in its name. Raises ValueError for a key or a name that is none.
    """
    run = _unnamed_run(settings, dataset, supervision, pooling, varied)
    # A key that does not concern the run has no place in its name: GAP has no size penalty.
    concerning = {
        key: value
        for key, value in _differing(settings, varied).items()
        if run != _unnamed_run(settings, dataset, supervision, pooling, {k: v for k, v in varied.items() if k != key})
    }
    suffix = "".join(f"+{key.rsplit('.', 1)[-1]}={value}" for key, value in concerning.items())
    return run.model_copy(update={"run": run.run + suffix})


def _unnamed_run(
    settings: Settings, dataset: str, supervision: Supervision, pooling: str | None, varied: dict[str, Any]
) -> RunSettings:
    """The run, called by its data set and its pooling or supervision alone."""
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
        run=f"{dataset}-{pooling if supervision == 'weak' else supervision}",
        dataset=dataset,
        supervision=supervision,
        records=records_path(settings, dataset, settings.datasets[dataset].train),
        excluded_records=evaluation_records(settings) if excludes else [],
        pretraining=pretraining_run(scale, start, varied).run if start else None,
        model=_run_model(settings, dataset),
        pooling=_run_pooling(settings, pooling),
        training=RunTrainingSettings(**{"targets": None} | values | own),
    )


def pretraining_run(settings: Settings, dataset: str, varied: dict[str, Any]) -> RunSettings:
    """The box pretraining on `dataset` of the run that `varied` describes."""
    concerning = {key: value for key, value in varied.items() if not key.startswith(NOT_OF_BOXES)}
    return make_run(settings, dataset, "boxes", None, concerning)


def evaluation_records(settings: Settings) -> list[str]:
    """Records of every evaluation split."""
    return [records_path(settings, name, dataset.evaluation) for name, dataset in settings.datasets.items()]


def vary(settings: Settings, varied: dict[str, Any]) -> Settings:
    """The settings with the values of `varied`, dotted keys, in their places. Raises ValueError for what is none."""
    if not varied:
        return settings
    values = settings.model_dump()
    for key, value in varied.items():
        *parents, last = key.split(".")
        if parents[:1] not in ([part] for part in VARIED):
            raise ValueError(f"settings: {key} does not decide a run's weights; vary keys of {', '.join(VARIED)}")
        place = values
        for parent in parents:
            place = place.get(parent)
            if not isinstance(place, dict):
                raise ValueError(f"settings: {key} is no key of the configuration; its part {parent} leads nowhere")
        if last not in place:
            raise ValueError(f"settings: {key} is no key of the configuration{hint(last, place)}")
        place[last] = value
    return parse(Settings, values, "settings of a table")


def _differing(settings: Settings, varied: dict[str, Any]) -> dict[str, str]:
    """Those of `varied` that are not the scale's, as they stand in a name."""
    scale, other = settings.model_dump(), vary(settings, varied).model_dump()
    differing = {}
    for key in sorted(varied):
        before, after = scale, other
        for part in key.split("."):
            before, after = before[part], after[part]
        if before != after:
            differing[key] = f"{after:g}" if isinstance(after, float) else str(after)
            if not set(differing[key]).isdisjoint("/ {}"):
                raise ValueError(f"settings: {key}: {after!r} cannot be part of a run's name; vary a plainer value")
    return differing


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


def _run_pooling(settings: Settings, pooling: str | None) -> PoolingSettings | None:
    if pooling is None:
        return None
    if pooling not in POOLINGS:
        raise ValueError(f"there is no pooling {pooling!r} in tseg.model.pooling{hint(pooling, POOLINGS)}")
    return PoolingSettings(name=pooling, weighting=settings.weighting if POOLINGS[pooling].weighted else None)
