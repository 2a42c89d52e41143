"""What one job of `tseg encode` computes: the tokens of a frozen encoder for a split of a data set."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from tseg.settings.schema import (
    EncoderSettings,
    ImageEncoderSettings,
    LanguageModelSettings,
    StrictModel,
    TrainingSettings,
)


class CropViews(StrictModel):
    """Fixed square crops of every image, for training."""

    kind: Literal["crops"] = "crops"
    num_views: PositiveInt
    """Crops per image."""
    resolution: PositiveInt
    scale: tuple[PositiveFloat, PositiveFloat]
    flip: bool
    """Whether every second crop is mirrored."""


class WholeViews(StrictModel):
    """Every whole image at one or several scales, for predictions."""

    kind: Literal["whole"] = "whole"
    resolution: PositiveInt
    scales: list[PositiveFloat]
    flip: bool
    """Whether every scale is also mirrored."""


def _check_fixed(encoder: EncoderSettings) -> EncoderSettings:
    if not encoder.is_fixed:
        raise ValueError("tokens are those of weights that no training changes; set trainable: heads, and weights")
    return encoder


Fixed = AfterValidator(_check_fixed)


class PatchEncoding(StrictModel):
    """The patch tokens of the images of a split."""

    kind: Literal["patches"] = "patches"
    records: str
    """Parquet file of the split's records."""
    encoder: Annotated[ImageEncoderSettings, Fixed]
    views: Annotated[CropViews | WholeViews, Field(discriminator="kind")]


class TextEncoding(StrictModel):
    """The tokens of the distinct expressions of a split."""

    kind: Literal["texts"] = "texts"
    records: str
    """Parquet file of the split's records."""
    encoder: Annotated[LanguageModelSettings, Fixed]
    mirrored: bool
    """Whether to add the expressions with left and right swapped."""


def crop_views(training: TrainingSettings) -> CropViews | None:
    """The fixed crops of a training; None if it draws a new crop each time."""
    if training.views is None:
        return None
    return CropViews(num_views=training.views, resolution=training.resolution, scale=training.scale, flip=training.flip)


Encoding = Annotated[PatchEncoding | TextEncoding, Field(discriminator="kind")]
