"""The provenance of the workflow's files: what they hold and how they were made, stored in each file as JSON."""

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError


class FrozenModel(BaseModel):
    """Immutable fields; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Provenance(FrozenModel):
    """What a file holds and how it was made."""

    kind: ClassVar[str]
    """The kind of file, written beside the fields."""
    command: ClassVar[str]
    """The sub-command of `tseg` that writes it."""

    def to_fields(self) -> dict[str, Any]:
        """The kind and the fields, as JSON has them."""
        return {"kind": self.kind} | self.model_dump(mode="json")

    def to_json(self) -> str:
        """`to_fields` as JSON with sorted keys."""
        return json.dumps(self.to_fields(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes, path: Path) -> Self:
        """Read what `to_json` wrote to `path`. Raises ValueError as `from_fields`."""
        try:
            fields = json.loads(text)
        except ValueError:
            fields = {}
        return cls.from_fields(fields, path)

    @classmethod
    def from_fields(cls, fields: Any, path: Path) -> Self:
        """Check fields read from `path`. Raises ValueError if they are of another kind or version."""
        if not isinstance(fields, dict) or fields.get("kind") != cls.kind:
            raise ValueError(f"{path} is of another kind; give a file that `tseg {cls.command}` wrote")
        try:
            return cls(**{name: value for name, value in fields.items() if name != "kind"})
        except ValidationError:
            raise ValueError(f"{path} is of another version; make it again with `tseg {cls.command}`") from None


class RecordsProvenance(Provenance):
    """The split of a data set that `tseg prepare` read."""

    kind = "records"
    command = "prepare"
    dataset: str
    split: str
    sources: list[str]
    """Sources of the catalogue; empty if the user supplied the files."""
    classes: list[str] | None
    """Class names of a semantic data set, from index 1 on."""
    num_skipped: int
    """Records that could not be used."""
    num_images: int
    name_ranks: str | None = None
    """PhraseCut: the file by whose counts its category names are ranked."""
    published: dict[str, int | None] | None
    """Numbers of `expressions` and `images` that the authors publish."""
    teacher: str | None = None
    """The run that made the masks. Default: they are the data set's own."""


class TokensProvenance(Provenance):
    """Which tokens a frozen encoder computed."""

    kind = "tokens"
    command = "encode"
    encoder: str
    """Fingerprint of the encoder."""
    num_features: int
    """Size of a token."""
    images: str
    """Fingerprint of the encoded images, their files and sizes, or of the expressions."""
    views: dict[str, Any] | None
    """Settings of the views of images; None for expressions."""

    def digest(self) -> str:
        """A hash of all fields."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


class EncoderProvenance(FrozenModel):
    """The architecture of an image encoder."""

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
    """The pooling that scores expressions, a student's teacher's; None for full supervision and boxes."""
    pooling_options: dict[str, Any]
    """Keyword arguments of the pooling."""
    resolution: int
    """Side of the training crops in pixels."""
    flip_words: Literal["swap", "keep"]
    """Whether a flip swaps left and right in expressions."""
    image_encoder: EncoderProvenance
    trained_on: RecordsProvenance
    pretrained_on: RecordsProvenance | None
    num_excluded: int | None
    """Images excluded from box pretraining because an evaluation has them; None if this was not checked."""

    @property
    def mask_pooling(self) -> str | None:
        """The pooling that gives similarities their masks; None if masks trained the model, pseudo labels included."""
        return None if self.supervision == "pseudo" else self.pooling


class PredictionsProvenance(Provenance):
    """How similarities were predicted."""

    kind = "predictions"
    command = "predict"
    model: ModelProvenance
    evaluated_on: RecordsProvenance
    resolution: int
    """Shorter side of an image in pixels, at scale 1."""
    scales: list[float]
    flip: bool
    window: int | None
    """Side of the encoder's windows in pixels; None: the whole image."""
    precision: str
    """Of the encoders."""
    labels: dict[str, list[str]] | None
    """Class to its words, for a data set with classes."""


class MasksProvenance(Provenance):
    """How masks were made from similarities."""

    kind = "masks"
    command = "refine"
    predictions: PredictionsProvenance
    crf: str | None
    crf_backend: str
    """What computed the dense CRF, if there is one."""
    crf_background: float | None
    """psa's alpha, for the label maps of poolings without masks."""
    background: float
    exclusive_activations: bool
    """Whether the masks of poolings without masks of their own exclude each other."""
    threshold: str
    """The rule that turns a map into a mask."""
    comparison: str
    """When a pixel belongs to a mask."""


class ScoresProvenance(Provenance):
    """Which masks were scored."""

    kind = "scores"
    command = "evaluate"
    masks: MasksProvenance
