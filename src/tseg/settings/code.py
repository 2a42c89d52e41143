"""The code that each kind of result depends on. Its hash is a parameter of the rule, so that an edit makes it again."""

from collections.abc import Mapping, Set

from tseg.settings.run_schema import RunSettings
from tseg.settings.schema import ClassEncodingSettings, DatasetSettings
from tseg.source import digest

NEUTRAL = {
    "tseg.files",
    "tseg.locks",
    "tseg.parts",
    "tseg.progress",
    "tseg.settings.code",
    "tseg.settings.validation",
    "tseg.source",
    "tseg.threads",
    "tseg.tracking",
    "tseg.training.checkpoint",
    "tseg.training.interruption",
}
"""Modules on which no byte of a result depends: they write, check, show and log it."""

ONLY_FOR: Mapping[str, Mapping[str, set[str]]] = {
    "format": {f"tseg.datasets.readers.{name}": {name} for name in ("pairs", "phrasecut", "refer", "voc")},
    "supervision": {
        "tseg.training.run._weak_objective": {"weak"},
        "tseg.training.batches.WeakBatches": {"weak"},
        "tseg.training.batches.PixelBatches": {"full", "boxes", "pseudo"},
        "tseg.training.objectives.full": {"full"},
        "tseg.training.objectives.boxes": {"boxes"},
        "tseg.training.objectives.pseudo": {"pseudo"},
    },
    "image_encoder": {
        "tseg.model.image_encoder.build_vit": {"vit"},
        "tseg.model.image_encoder.ViTEncoder": {"vit"},
        "tseg.model.wide_resnet38": {"wide_resnet38"},
    },
    "text_encoder": {
        "tseg.model.text_encoder.build_language_model": {"language_model"},
        "tseg.model.text_encoder.TextEncoder": {"language_model"},
        "tseg.model.language_model": {"language_model"},
        "tseg.model.text_encoder.ClassEncoder": {"classes"},
    },
    "crf": {
        "tseg.inference.crf": {"lattice", "pydensecrf"},
        "tseg.inference.crf.refine_masks": {"lattice"},
        "tseg.inference.crf.refine_labels": {"lattice"},
        "tseg.inference.lattice": {"lattice"},
        "tseg.inference.reference_crf": {"pydensecrf"},
        "tseg.inference.pamr": {"pamr"},
    },
    "truth": {
        "tseg.inference.semantic": {"classes"},
        "tseg.evaluation.voc_miou": {"classes"},
        "tseg.evaluation.iou": {"records"},
        "tseg.evaluation.subsets": {"records"},
    },
}
"""Choice to definition to the values of the choice that use it."""


def code_of(command: str, choices: Mapping[str, str] | None = None, chosen: Set[str] = frozenset()) -> str:
    """The hash of the code of a sub-command (`draw.masks` for `tseg draw masks`) with these `choices` of `ONLY_FOR`.

    `chosen`: see `tseg.source.digest`.
    """
    unused = {
        definition
        for choice, value in (choices or {}).items()
        for definition, values in ONLY_FOR[choice].items()
        if value not in values
    }
    module, _, function = command.partition(".")
    return digest(f"tseg.cli.{module}.{function or module}", without=NEUTRAL | unused, chosen=chosen)


def shapes_code() -> str:
    """The code that draws the embedded data set."""
    return digest("tseg.datasets.shapes.draw.draw_shapes", without=NEUTRAL)


def prepare_code(dataset: DatasetSettings) -> str:
    """The code that prepares a data set."""
    return code_of("prepare", {"format": dataset.format})


def train_code(run: RunSettings) -> str:
    """The code that trains a run."""
    return code_of("train", {"supervision": run.supervision} | _encoders(run), {_pooling(run)})


def predict_code(run: RunSettings) -> str:
    """The code that predicts with the model of a run."""
    return code_of("predict", _encoders(run))


def mask_code(
    command: str, run: RunSettings, *, threshold: str, crf: str | None, crf_backend: str, has_classes: bool
) -> str:
    """The code of `refine` or `pseudo_label`, which make masks from the predictions of a run."""
    rule = threshold.upper() if threshold in ("fixed", "oracle") else threshold
    choices = {
        "crf": "none" if crf is None else crf if crf in ("none", "pamr") else crf_backend,
        "truth": "classes" if has_classes else "records",
    }
    return code_of(command, choices, {_pooling(run), f"tseg.inference.thresholds.{rule}"})


def _pooling(run: RunSettings) -> str:
    """The run's pooling; without one, a name of its module, so that no pooling counts."""
    return f"tseg.model.pooling.{run.pooling.name if run.pooling else 'POOLINGS'}"


def _encoders(run: RunSettings) -> dict[str, str]:
    is_wide = run.model.image_encoder.name == "wide_resnet38"
    has_classes = isinstance(run.model.text_encoder, ClassEncodingSettings)
    return {
        "image_encoder": "wide_resnet38" if is_wide else "vit",
        "text_encoder": "classes" if has_classes else "language_model",
    }
