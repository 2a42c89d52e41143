"""The schema of a configuration file (config/*.yaml).

Unknown keys are errors. Keys without a default are required.
"""

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from tseg.expressions import clean_expression
from tseg.settings.validation import check_known

Supervision = Literal["weak", "full", "boxes", "pseudo"]
"""weak: expressions only. full: masks (section 4.2). boxes: box pretraining (Table 2e). pseudo: masks of a weak run."""
Share = Annotated[float, Field(ge=0, lt=1)]
Channels = tuple[float, float, float]
"""A number for each of red, green and blue."""
Trainable = Literal["all", "heads"] | PositiveInt
"""all: the whole encoder learns. heads: nothing of it does, only the projections and tau. A number: its last blocks."""
LabelFreeRule = Literal["fixed", "halfway", "relative", "otsu"]
"""How a map of similarities becomes a mask: the paper's s > 0, or a rule of `tseg.inference.thresholds`."""
ThresholdRule = Literal[LabelFreeRule, "oracle"]
"""A rule, or the oracle, which cuts each map at the area of its true mask."""
RefinementName = Literal["psa", "irn", "deeplab", "afa", "pamr"]
"""A preset of the dense CRF, or PAMR, which needs no compiler."""


class StrictModel(BaseModel):
    """Immutable settings without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class PublishedCounts(StrictModel):
    """Published size of a split; null: not published."""

    expressions: PositiveInt | None = None
    images: PositiveInt | None = None


class DatasetSettings(StrictModel):
    """One data set in an official on-disk format."""

    format: Literal["phrasecut", "refer", "voc", "pairs"]
    sources: list[str] = []
    """Sources of the catalogue that provide the files. Default: none; the files are already there."""
    annotations: str
    """Folder of the annotation files. Format voc: VOCdevkit/VOC2012."""
    images: Annotated[list[str], Field(min_length=1)]
    """Folders of the images, in order of preference."""
    split_by: str | None = None
    """Format refer: author of the splits (unc, google or umd), as in refs(<split_by>).p."""
    masks: list[str] = []
    """Format voc: folders of class masks, .png or SBD's .mat, in order of preference."""
    classes: list[str] | None = None
    """Format voc: names of the classes 1, 2, ..., used as expressions."""
    train: str
    """Split to train on."""
    evaluation: str
    """Split to evaluate on."""
    published: dict[str, PublishedCounts] = {}
    """Expected size of each split; `prepare` reports differences."""

    @model_validator(mode="after")
    def _keys_match_format(self) -> Self:
        if (self.format == "refer") != (self.split_by is not None):
            raise ValueError("format refer needs split_by (unc, google or umd); other formats do not take it")
        if any((self.format == "voc") != bool(value) for value in (self.masks, self.classes)):
            raise ValueError("format voc needs masks and classes; other formats do not take them")
        names = self.classes or []
        if len(set(names)) != len(names):
            raise ValueError("classes has a duplicate; give each class its own name")
        if len(names) > 254:
            raise ValueError(f"classes has {len(names)} names; the limit is 254")
        for name in names:
            if name != clean_expression(name) or name in ("", "background"):
                raise ValueError(
                    f"classes: {name!r} is background, or has nothing that can be seen, or extra spaces; rename it"
                )
        return self


class EncoderSettings(StrictModel):
    """What both encoders have."""

    weights: str | None
    """Pretrained weights: a file or folder, or a name on the hub; null: random."""
    trainable: Trainable = "all"
    """Which part learns: all, heads (nothing of the encoder), or the number of its last blocks."""

    @property
    def is_fixed(self) -> bool:
        """Whether the weights are known before any training, so that tokens can be computed once for all."""
        return self.trainable == "heads" and self.weights is not None


class ImageEncoderSettings(EncoderSettings):
    """A timm ViT or `wide_resnet38`."""

    name: str
    """A name of timm's, with or without the tag of its weights, such as vit_small_patch14_dinov2.lvd142m."""
    options: Annotated[dict[str, int], BeforeValidator(lambda value: value or {}, dict[str, int] | None)] = {}
    """ViT: img_size, patch_size, embed_dim, depth, num_heads, as timm takes them. wide_resnet38: width. null: none."""
    mean: Channels | None = None
    """Subtracted from RGB values in [0, 1]. Default: as timm publishes it for the weights."""
    std: Channels | None = None
    """Divides the RGB values after `mean` is subtracted. Default: as timm publishes it for the weights."""
    positions: Literal["bilinear", "bicubic"] = "bilinear"
    """How learnt position embeddings are resized to other image sizes; bicubic with antialiasing."""
    drop_path: Share
    """Rate of stochastic depth."""

    @model_validator(mode="after")
    def _normalisation_is_complete(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together; set both or neither")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std: {self.std} is not positive; give the standard deviations of RGB values in [0, 1]")
        return self


class RandomLanguageModelSettings(StrictModel):
    """Sizes of a BERT with random weights."""

    hidden_size: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    vocabulary_size: PositiveInt
    """Most pieces of the vocabulary, which is learnt from the training expressions."""


class LanguageModelSettings(EncoderSettings):
    """A text encoder of transformers; sizes and tokenizer are read from its weights."""

    pooling: Literal["first", "mean", "last"] = "first"
    """What represents an expression: its first token (BERT), the mean (sentence encoders), the last (CLIP, SigLIP)."""
    max_tokens: PositiveInt | None = None
    """Longer expressions are truncated. Default: the model's own limit."""
    dropout: Share
    random: RandomLanguageModelSettings | None = None
    """The sizes if `weights` is null; not used otherwise."""

    @model_validator(mode="after")
    def _sizes_are_known(self) -> Self:
        if self.weights is None and self.random is None:
            raise ValueError("without weights it needs sizes; add random, or name weights")
        return self

    def as_used(self) -> Self:
        """The settings without the sizes that pretrained weights replace."""
        return self if self.weights is None else self.model_copy(update={"random": None})


class ClassEncodingSettings(StrictModel):
    """A learnt vector per class instead of a language model (Table 1, "class encoding")."""

    classes: list[str]
    num_features: PositiveInt


class ModelSettings(StrictModel):
    """The encoders and the joint embedding space."""

    image_encoder: str
    """A key of `image_encoders`."""
    text_encoder: Literal["language_model", "classes"]
    """classes: a learnt vector per class of the training data."""
    class_features: PositiveInt | None = None
    """Size of a class's vector; needed if text_encoder is classes."""
    embed_dim: PositiveInt
    patch_hidden: PositiveInt | None = None
    """Hidden units of the projection of patches; null: a linear projection, as in the paper."""
    tau: PositiveFloat
    """Initial value of the learnt temperature (eq. 1)."""


class PartRates(StrictModel):
    """Factors of the learning rate for the parts of a model."""

    image_encoder: PositiveFloat = 1.0
    text_encoder: PositiveFloat = 1.0
    heads: PositiveFloat = 1.0
    """The projections and tau."""


class OptimizerSettings(StrictModel):
    """SGD or AdamW with the poly schedule."""

    name: Literal["sgd", "adamw"]
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    momentum: Share = 0.0
    """SGD only."""
    warmup: NonNegativeInt
    """Iterations over which the learning rate rises to `learning_rate`."""
    poly_power: NonNegativeFloat
    rates: PartRates = PartRates()
    """Factors of `learning_rate`."""
    decay: Literal["all", "matrices"] = "all"
    """Weights that decay. matrices: not biases, norms, tau, position embeddings, and class and register tokens."""


class TrainingSettings(StrictModel):
    """Training with one kind of supervision."""

    iterations: PositiveInt | dict[str, PositiveInt]
    """For all data sets, or per data set."""
    batch_size: PositiveInt | dict[str, PositiveInt]
    """For all data sets, or per data set."""
    expressions_per_image: PositiveInt
    """On average over a batch; images with more make up for images with fewer."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training images (Table 2d). Smaller shares are subsets of larger ones."""
    optimizer: OptimizerSettings
    resolution: PositiveInt
    """Side of the square crops, in pixels."""
    views: PositiveInt | None = None
    """Number of fixed crops per image; the tokens of a frozen image encoder are then computed once. Default: a new crop
    each time."""
    scale: tuple[PositiveFloat, PositiveFloat]
    """Range of the random scale, drawn uniformly: the shorter side is resized to `resolution` times this scale."""
    flip: bool
    flip_words: Literal["swap", "keep"]
    """Whether a flip swaps left and right in the expressions."""
    precision: Literal["float32", "tf32", "bfloat16"]
    """What the encoders compute in; similarities and weights are float32. tf32: float32, but all products, those of
    similarities too, have 10 bits of mantissa on GPUs that have such units."""
    compile: bool = False
    """Whether torch.compile makes kernels for the encoders, which takes half a minute or more at each start. A training
    that goes on after a kill then has the same losses up to rounding."""


class WeakTrainingSettings(TrainingSettings):
    """Weak supervision."""

    targets: Literal["identity", "tf-idf"] = "identity"
    """Kind of targets (Table 2c)."""
    loss: Literal["mean", "sum"] = "mean"
    """Mean or sum of the loss over the expressions of a batch (section 3.3, L_cls)."""
    same_image_weight: NonNegativeFloat = 0.0
    """Weight of the overlap of an image's masks of different regions (`group_id`); 0: none. Only for `mpa`."""
    ignore_similar: Share | None = None
    """Tf-idf score above which an image and another image's expression count neither way; null: all pairs count."""
    pretraining: str | None = None
    """Data set for box pretraining (Table 2e); null: none."""


class BoxTrainingSettings(TrainingSettings):
    """Box pretraining."""

    exclude_evaluation: bool
    """Exclude the images of all evaluation splits, identified by COCO id."""


class PseudoLabelSettings(StrictModel):
    """How a weak run's masks of its own training images become the masks of a second run."""

    threshold: LabelFreeRule
    """Rule that cuts the teacher's maps."""
    crf: RefinementName | None
    """Refinement of the teacher's masks; null: none."""
    ignore_band: Annotated[float, Field(ge=0, lt=0.5)]
    """Pixels whose probability is closer to 0.5 than this are ignored."""


class PseudoTrainingSettings(TrainingSettings):
    """Self-training: the masks of a weak run, made without any true mask, supervise a second run."""

    pseudo_labels: PseudoLabelSettings
    absent_weight: NonNegativeFloat = 1.0
    """Weight of the loss of expressions that an image lacks."""


class Trainings(StrictModel):
    """Training settings for each kind of supervision."""

    weak: WeakTrainingSettings
    full: TrainingSettings
    boxes: BoxTrainingSettings
    pseudo: PseudoTrainingSettings | None = None


class ResolutionSettings(StrictModel):
    """Shorter side of the encoder's input in pixels, for each kind of supervision."""

    weak: PositiveInt
    full: PositiveInt


class InferenceSettings(StrictModel):
    """From a trained model to masks."""

    resolution: ResolutionSettings
    window: PositiveInt | None = None
    """Side in pixels of the square windows that the encoder sees, as Segmenter's; null: the whole image at once."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the encoders compute in; similarities are float32. bfloat16 is faster where the hardware computes in it."""
    multiscale: Annotated[list[PositiveFloat], Field(min_length=1)]
    """Factors of the resolution for multi-scale inference; each scale is also flipped."""
    background: Annotated[float, Field(gt=0, lt=1)]
    """Poolings without masks (GAP, GMP): threshold on the max-normalised activation."""
    exclusive_activations: bool = True
    """Poolings without masks: whether a pixel belongs to at most one expression of an image, the one with the largest
    activation."""
    threshold: LabelFreeRule = "fixed"
    """The rule of cells with `threshold: calibrated`; all other cells are cut as the paper does."""
    confidence: Annotated[float, Field(ge=0, lt=1)]
    """Data sets with classes: threshold on the sigmoid of a class's score; classes below it are ignored."""
    crf: RefinementName
    """The refinement of cells with `crf: true`: a preset of the dense CRF, or pamr."""
    crf_backend: Literal["lattice", "pydensecrf"] = "lattice"
    """What computes the dense CRF: TSEG's own filters, or pydensecrf, whose masks differ in a pixel or two of an image
    and which takes longer."""
    crf_background: PositiveFloat | None = 4.0
    """Data sets with classes and poolings without masks: alpha of psa's background (1 - max activation)^alpha in the
    refinement; null: the constant `background`."""


class ResourceSettings(StrictModel):
    """Resources of one job of a rule."""

    threads: PositiveInt = 1
    mem_mb: PositiveInt
    runtime: PositiveInt
    """Minutes."""
    gpu: NonNegativeInt = 0
    """GPUs; several of them share each batch of a training, and no other rule uses more than one."""


class TrainResourceSettings(ResourceSettings):
    """Resources of one training."""

    checkpoint_minutes: PositiveInt = 5
    """Minutes of work that a killed training loses at most."""


class Resources(StrictModel):
    """Resources of the rules that a cluster runs as jobs; the other rules are light and run locally."""

    prepare: ResourceSettings
    encode: ResourceSettings
    train: TrainResourceSettings
    predict: ResourceSettings
    refine: ResourceSettings
    evaluate: ResourceSettings
    draw: ResourceSettings


class Settings(StrictModel):
    """A configuration file."""

    data_dir: str
    """Folder for fetched files (raw/) and records (records/)."""
    results_dir: str
    experiments: str
    """File of methods, tables and figures (experiments.yaml)."""
    published: str
    """File of published numbers (published.csv)."""
    label_sets: str
    """File of label sets for label engineering (label_sets.yaml)."""
    sources: str
    """File that lists all sources, the catalogue (sources.yaml)."""
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)]
    tracking_uri: str | None
    """MLflow store: sqlite:///path or the URL of a server; null: no tracking."""
    datasets: dict[str, DatasetSettings]
    model: ModelSettings
    image_encoders: dict[str, ImageEncoderSettings]
    language_model: LanguageModelSettings
    training: Trainings
    inference: InferenceSettings
    num_bootstrap: PositiveInt
    """Bootstrap resamples for the 95% interval."""
    exclude_seen: bool
    """Exclude images from an evaluation if the run was trained on them as part of another data set."""
    resources: Resources

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        check_known(self.model.image_encoder, self.image_encoders, "model.image_encoder: image_encoders has no")
        pretraining = self.training.weak.pretraining
        if pretraining is not None:
            check_known(pretraining, self.datasets, "training.weak.pretraining: there is no data set")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} has a duplicate; list each seed once")
        return self


def records_path(settings: Settings, dataset: str, split: str) -> str:
    """Return the path of the records of a split."""
    return f"{settings.data_dir}/records/{dataset}/{split}.parquet"
