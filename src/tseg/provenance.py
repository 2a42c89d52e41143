"""What the workflow's files are and what made them: typed metadata, kept inside each file as JSON."""

import json
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError


class FrozenModel(BaseModel):
    """Values that refuse unknown keys and do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Provenance(FrozenModel):
    """What the rows of a file, or the weights of a model, are and what made them."""

    kind: ClassVar[str]
    """What the file holds; written beside the fields."""
    command: ClassVar[str]
    """The sub-command of `tseg` that writes it."""

    def to_json(self) -> str:
        """The fields and the kind, keys in order."""
        return json.dumps({"kind": self.kind} | self.model_dump(mode="json"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes, path: Path) -> Self:
        """What `to_json` wrote. Raises ValueError naming `path` if it is of another kind or version."""
        fields: dict[str, Any] = json.loads(text)
        if fields.pop("kind", None) != cls.kind:
            raise ValueError(f"{path} is of another kind; give a file that `tseg {cls.command}` wrote")
        try:
            return cls(**fields)
        except ValidationError:
            raise ValueError(f"{path} is of another version; make it again with `tseg {cls.command}`") from None


class RecordsProvenance(Provenance):
    """A split of a data set, as `tseg prepare` read it."""

    kind = "records"
    command = "prepare"
    dataset: str
    split: str
    sources: list[str]
    """Sources of the catalogue; empty: the files were in place."""
    classes: list[str] | None
    """Names of the classes of a semantic data set, from value 1 on."""
    num_skipped: int
    """Records that could not be used."""
    num_images: int
    published: dict[str, int | None] | None
    """Counts of `expressions` and `images` that the authors publish."""


class EncoderProvenance(FrozenModel):
    """An image encoder."""

    name: str
    options: dict[str, int]


class ModelProvenance(Provenance):
    """How a model was trained."""

    kind = "model"
    command = "train"
    run: str
    seed: int
    supervision: str
    pooling: str | None
    """Of weak supervision."""
    pooling_options: dict[str, Any]
    """Arguments of the pooling's score."""
    resolution: int
    """Side of the training crops in pixels."""
    flip_words: Literal["swap", "keep"]
    """What a flip does to left and right in expressions."""
    image_encoder: EncoderProvenance
    trained_on: RecordsProvenance
    pretrained_on: RecordsProvenance | None
    num_excluded: int | None
    """Images left out of box pretraining because an evaluation has them; None: nothing was looked for."""


class PredictionsProvenance(Provenance):
    """How similarities were predicted."""

    kind = "predictions"
    command = "predict"
    model: ModelProvenance
    evaluated_on: RecordsProvenance
    resolution: int
    """Longer side of an image in pixels."""
    scales: list[float]
    flip: bool
    labels: dict[str, list[str]] | None
    """Class to the words that stand for it, for a data set with classes."""


class MasksProvenance(Provenance):
    """How masks were made of similarities."""

    kind = "masks"
    command = "refine"
    predictions: PredictionsProvenance
    crf: str | None
    background: float
    comparison: str
    """When a pixel belongs to a mask."""


class ScoresProvenance(Provenance):
    """Which masks were scored."""

    kind = "scores"
    command = "evaluate"
    masks: MasksProvenance
