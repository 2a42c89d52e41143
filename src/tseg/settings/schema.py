"""The settings: what config/*.yaml may say, typed and closed. This is the only schema.

Every key is required unless it has a default here: a configuration file is complete, or says what it lacks.
"""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from tseg.settings.validation import check_known

Supervision = Literal["weak", "full", "boxes"]
"""weak: expressions of images. full: masks (section 4.2). boxes: boxes, to start from (Table 2e)."""
Share = Annotated[float, Field(ge=0, lt=1)]


class StrictModel(BaseModel):
    """Settings that refuse unknown keys and do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PublishedCounts(StrictModel):
    """What a split has, as its authors say; null where they do not."""

    expressions: PositiveInt | None = None
    images: PositiveInt | None = None


class DatasetSettings(StrictModel):
    """One data set in an official on-disk format."""

    format: Literal["phrasecut", "refer", "voc", "pairs"]
    sources: list[str] = []
    """Sources of the catalogue that must be fetched first; none where the files are in place."""
    annotations: str
    """Folder of the annotation files; of format voc: VOCdevkit/VOC2012."""
    images: Annotated[list[str], Field(min_length=1)]
    """Folders of the images; the first that has a file wins."""
    split_by: str | None = None
    """Format refer: who split it, as in refs(<split_by>).p: unc, google, umd."""
    masks: list[str] = []
    """Format voc: folders of class masks, .png or SBD's .mat; the first that has an image's wins."""
    classes: list[str] | None = None
    """Format voc: names of the classes 1, 2, ..., as a model is asked for them."""
    train: str
    evaluation: str
    published: dict[str, PublishedCounts] = {}
    """Split to what it should have; `prepare` says where it has not."""

    @model_validator(mode="after")
    def _keys_of_its_format(self):
        if (self.format == "refer") != (self.split_by is not None):
            raise ValueError("split_by goes with format refer, and only with it: unc, google or umd")
        if any((self.format == "voc") != bool(value) for value in (self.masks, self.classes)):
            raise ValueError("masks and classes go with format voc, and only with it: folders and names")
        names = self.classes or []
        if len(set(names)) != len(names):
            raise ValueError("classes names a class twice; give each its own name")
        if len(names) > 254 or any(name != " ".join(name.split()) or name in ("", "background") for name in names):
            raise ValueError("classes holds more than 254 names, background, or a name with spaces too many; fix it")
        return self


class ImageEncoderSettings(StrictModel):
    """A timm ViT, or `wide_resnet38`."""

    name: str
    options: dict[str, int] = {}
    """ViT: arguments of timm's constructor: img_size, patch_size, embed_dim, depth, num_heads. wide_resnet38: width."""
    weights: str | None
    """null: random; a file; or a name on the hub."""
    drop_path: Share


class LanguageModelSettings(StrictModel):
    """A transformers BERT."""

    hidden_size: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    vocabulary_size: PositiveInt
    max_tokens: PositiveInt
    """Longer expressions are cut."""
    dropout: Share
    weights: str | None
    """null: random, the vocabulary learnt from the training expressions; a folder; or a name on the hub."""


class ClassEncodingSettings(StrictModel):
    """A learnt vector per class (Table 1, "class encoding")."""

    classes: list[str]
    num_features: PositiveInt


class ModelSettings(StrictModel):
    """The model, its encoders by name."""

    image_encoder: str
    """A key of `image_encoders`."""
    text_encoder: Literal["language_model", "classes"]
    """classes: a learnt vector per class of the training data in place of the language model."""
    embed_dim: PositiveInt
    tau: PositiveFloat


class WeightingSettings(StrictModel):
    """Weighted pooling, SPA and MPA (eq. 4 and 7)."""

    epsilon: NonNegativeFloat
    size_lambda: NonNegativeFloat
    size_power: NonNegativeFloat


class OptimizerSettings(StrictModel):
    """SGD or AdamW, with the poly schedule."""

    name: Literal["sgd", "adamw"]
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    momentum: Share = 0.0
    """SGD's."""
    warmup: NonNegativeInt
    """Iterations over which the rate rises to `learning_rate`."""
    poly_power: NonNegativeFloat


class TrainingSettings(StrictModel):
    """Training by one kind of supervision."""

    iterations: dict[str, PositiveInt]
    """Per data set."""
    batch_size: dict[str, PositiveInt]
    """Per data set."""
    expressions_per_image: PositiveInt
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the training images (Table 2d); a smaller part lies within a larger one."""
    optimizer: OptimizerSettings
    resolution: PositiveInt
    """Side of the square crops in pixels."""
    scale: tuple[PositiveFloat, PositiveFloat]
    """The shorter side becomes `resolution` times a random factor between these."""
    flip: bool
    flip_words: Literal["swap", "keep"]
    """What a flip does to left and right in the expressions."""
    precision: Literal["float32", "bfloat16"]


class WeakTrainingSettings(TrainingSettings):
    """Weak supervision."""

    targets: Literal["identity", "tf-idf"] = "identity"
    """Ground truth of the scores (Table 2c)."""
    pretraining: str | None = None
    """Data set on whose boxes the model is trained first (Table 2e); null: none."""


class BoxTrainingSettings(TrainingSettings):
    """Box pretraining."""

    exclude_evaluation: bool
    """Leave out the images of every evaluation split, by COCO's image id."""


class Trainings(StrictModel):
    """One entry per supervision."""

    weak: WeakTrainingSettings
    full: TrainingSettings
    boxes: BoxTrainingSettings


class ResolutionSettings(StrictModel):
    """Longer side of an image in pixels when it enters the encoder, by the supervision that trained it."""

    weak: PositiveInt
    full: PositiveInt


class InferenceSettings(StrictModel):
    """Prediction and masks."""

    resolution: ResolutionSettings
    multiscale: Annotated[list[PositiveFloat], Field(min_length=1)]
    """Factors of the resolution, each with its mirror image, where a table asks for multi-scale processing."""
    background: Annotated[float, Field(gt=0, lt=1)]
    """GAP and GMP: what the max-normalised activation must exceed."""
    confidence: Annotated[float, Field(ge=0, lt=1)]
    """Data sets with classes: what the sigmoid of a class's score must exceed for it to take part."""
    crf: Literal["psa", "irn", "deeplab", "afa"]


class ResourceSettings(StrictModel):
    """What a rule asks of the machine."""

    threads: PositiveInt = 1
    mem_mb: PositiveInt
    runtime: PositiveInt
    """Minutes."""
    gpu: NonNegativeInt = 0


class Resources(StrictModel):
    """One entry per rule."""

    track: ResourceSettings
    configure: ResourceSettings
    fetch: ResourceSettings
    prepare: ResourceSettings
    train: ResourceSettings
    predict: ResourceSettings
    refine: ResourceSettings
    evaluate: ResourceSettings
    describe: ResourceSettings
    overlap: ResourceSettings
    tabulate: ResourceSettings
    draw: ResourceSettings


class Settings(StrictModel):
    """A whole configuration file."""

    data_dir: str
    """Where fetched files (raw/) and records (records/) go."""
    results_dir: str
    experiments: str
    published: str
    label_sets: str
    sources: str
    """The catalogue: where the files of every source come from."""
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)]
    tracking_uri: str | None
    """MLflow store: sqlite:///path, the address of a server, or null for none."""
    datasets: dict[str, DatasetSettings]
    model: ModelSettings
    image_encoders: dict[str, ImageEncoderSettings]
    language_model: LanguageModelSettings
    weighting: WeightingSettings
    training: Trainings
    inference: InferenceSettings
    num_bootstrap: PositiveInt
    exclude_seen: bool
    """Leave images that a run was trained on out of its evaluations on other data sets."""
    resources: Resources

    @model_validator(mode="after")
    def _names_are_known(self):
        check_known(self.model.image_encoder, self.image_encoders, "model.image_encoder: image_encoders has no")
        pretraining = self.training.weak.pretraining
        if pretraining is not None:
            check_known(pretraining, self.datasets, "training.weak.pretraining: there is no data set")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} names one twice; name each once")
        return self


class RunModelSettings(StrictModel):
    """The model of a run: the arguments of `build_tseg`."""

    image_encoder: ImageEncoderSettings
    text_encoder: LanguageModelSettings | ClassEncodingSettings
    embed_dim: PositiveInt
    tau: PositiveFloat


class PoolingSettings(StrictModel):
    """The pooling that trains a run weakly, and tells how masks are read from its similarities."""

    name: str
    weighting: WeightingSettings | None


class RunTrainingSettings(TrainingSettings):
    """Training of one run."""

    iterations: PositiveInt  # type: ignore[assignment]
    batch_size: PositiveInt  # type: ignore[assignment]
    targets: Literal["identity", "tf-idf"] | None
    """Weak supervision's."""


class RunSettings(StrictModel):
    """All that decides a run's weights but the seed; `results/runs/<run>/config.yaml`."""

    run: str
    dataset: str
    supervision: Supervision
    records: str
    """Parquet file of the training records."""
    excluded_records: list[str]
    """Parquet files of records whose images must not be trained on."""
    pretraining: str | None
    """The run whose weights, of the same seed, it starts from."""
    model: RunModelSettings
    pooling: PoolingSettings | None
    """Weak supervision's."""
    training: RunTrainingSettings


def records_path(settings: Settings, dataset: str, split: str) -> str:
    """Where `prepare` puts the records of a split."""
    return f"{settings.data_dir}/records/{dataset}/{split}.parquet"
