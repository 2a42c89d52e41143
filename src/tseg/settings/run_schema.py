"""The settings of one run: `results/runs/<run>/config.yaml`."""

from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationInfo, create_model, field_validator

from tseg.files import atomic_write
from tseg.model.pooling import POOLINGS
from tseg.settings.schema import (
    ClassEncodingSettings,
    ImageEncoderSettings,
    LanguageModelSettings,
    PseudoLabelSettings,
    Share,
    StrictModel,
    Supervision,
    TrainingSettings,
)
from tseg.settings.validation import check_known, parse


class RunModelSettings(StrictModel):
    """The model of a run: its encoders, the dimension of the common space, and tau."""

    image_encoder: ImageEncoderSettings
    text_encoder: LanguageModelSettings | ClassEncodingSettings
    embed_dim: PositiveInt
    patch_hidden: PositiveInt | None = None
    tau: PositiveFloat


class PoolingSettings(StrictModel):
    """The pooling of a weakly supervised run; it also determines how similarities become masks."""

    name: str
    """A pooling of `tseg.model.pooling`."""
    options: dict[str, Any] = Field(default={}, validate_default=True)
    """Keyword arguments of the pooling; its defaults are added."""

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, name: str) -> str:
        check_known(name, POOLINGS, "tseg.model.pooling has no pooling")
        return name

    @field_validator("options")
    @classmethod
    def _options_fit(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return fit_options(info.data["name"], options) if "name" in info.data else options

    def with_options(self, options: dict[str, Any]) -> "PoolingSettings":
        """The pooling with `options` in place of its own. Raises ValueError as `fit_options`."""
        # Checking options takes long; most cells have none.
        fitted = fit_options(self.name, self.options | options) if options else self.options
        return PoolingSettings.model_construct(name=self.name, options=fitted)

    def changed_options(self) -> dict[str, Any]:
        """The options that differ from the defaults of the pooling, in alphabetical order."""
        defaults = {name: parameter.default for name, parameter in _parameters(self.name).items()}
        return {name: value for name, value in sorted(self.options.items()) if value != defaults[name]}


def fit_options(pooling: str, options: dict[str, Any]) -> dict[str, Any]:
    """Check the options against the signature of `pooling`, convert them to its types, and add its defaults.

    Raises ValueError if an option is unknown, missing or invalid.
    """
    fields: dict[str, Any] = {
        name: (parameter.annotation, ... if parameter.default is Parameter.empty else parameter.default)
        for name, parameter in _parameters(pooling).items()
    }
    schema = create_model(pooling, __base__=StrictModel, __module__=POOLINGS[pooling].score.__module__, **fields)
    return parse(schema, options, f"options of the pooling {pooling}").model_dump()


def _parameters(pooling: str) -> dict[str, Parameter]:
    """The keyword-only parameters of a pooling's score."""
    parameters = signature(POOLINGS[pooling].score).parameters.values()
    return {parameter.name: parameter for parameter in parameters if parameter.kind is Parameter.KEYWORD_ONLY}


class RunTrainingSettings(TrainingSettings):
    """Training of one run, on one data set."""

    iterations: PositiveInt  # type: ignore[assignment]
    batch_size: PositiveInt  # type: ignore[assignment]
    targets: Literal["identity", "tf-idf"] | None
    """Weak supervision only, as the keys below."""
    loss: Literal["mean", "sum"] | None = None
    same_image_weight: NonNegativeFloat | None = None
    ignore_similar: Share | None = None
    pseudo_labels: PseudoLabelSettings | None = None
    """Supervision by pseudo labels only, as the key below."""
    absent_weight: NonNegativeFloat | None = None


class RunSettings(StrictModel):
    """All settings that, together with the seed, determine a run's weights: `results/runs/<run>/config.yaml`."""

    run: str
    dataset: str
    supervision: Supervision
    records: str
    """Parquet file of the training records."""
    excluded_records: list[str]
    """Parquet files of records whose images are excluded from training."""
    pretraining: str | None
    """The run whose weights initialise this one, at the same seed."""
    teacher: str | None = None
    """The run whose masks of the training images supervise this one, at the same seed."""
    model: RunModelSettings
    pooling: PoolingSettings | None
    """None for full supervision and box pretraining."""
    training: RunTrainingSettings


def write_run(run: RunSettings, path: Path) -> None:
    """Write the settings of a run, complete, as YAML."""
    with atomic_write(path) as partial:
        partial.write_text(yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False))
