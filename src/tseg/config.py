"""The settings: what config/*.yaml may say, typed and closed. This is the only schema.

Every key is required unless it has a default here: a configuration file is complete, or says what it lacks.
"""

import difflib
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

PoolingName = Literal["gmp", "gap", "spa", "mpa"]
Share = Annotated[float, Field(ge=0, lt=1)]


class Closed(BaseModel):
    """Settings that refuse unknown keys and do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ShapesSource(Closed):
    """The embedded data set, drawn by `tseg fetch`."""

    kind: Literal["shapes"]
    num_train: PositiveInt
    num_val: PositiveInt
    seed: NonNegativeInt


class ArchiveSource(Closed):
    """A zip or tar archive on the web."""

    kind: Literal["archive"]
    url: str
    checksum: Annotated[str, Field(pattern="^(md5|sha256):[0-9a-f]+$")] | None
    """None where none is published: the download is not verified, and the log says so."""


class PlacedSource(Closed):
    """Files that a person must fetch by hand, because their host refuses scripts."""

    kind: Literal["placed"]
    files: list[str]
    page: str


Source = Annotated[ShapesSource | ArchiveSource | PlacedSource, Field(discriminator="kind")]


class DatasetSettings(Closed):
    """One data set in an official on-disk format."""

    format: Literal["phrasecut", "refer"]
    sources: list[str] = []
    """Keys of `sources` that must be fetched first; none where the files are in place."""
    annotations: str
    """Folder of the annotation files."""
    images: Annotated[list[str], Field(min_length=1)]
    """Folders of the pictures; the first that has a file wins."""
    split_by: str | None = None
    """For the format refer: who split it, as in refs(<split_by>).p: unc, google, umd."""
    train: str
    evaluation: str

    @model_validator(mode="after")
    def _refer_needs_split_by(self):
        if (self.format == "refer") != (self.split_by is not None):
            raise ValueError("split_by goes with format refer, and only with it: unc, google or umd")
        return self


class ImageEncoderSettings(Closed):
    """A timm ViT."""

    name: str
    options: dict[str, int] = {}
    """Arguments of timm's constructor: img_size, patch_size, embed_dim, depth, num_heads."""
    weights: str | None
    """null: random; a file; or a name on the hub."""
    drop_path: Share


class TextEncoderSettings(Closed):
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


class ModelSettings(Closed):
    """The model: the arguments of `build_tseg`."""

    image_encoder: ImageEncoderSettings
    text_encoder: TextEncoderSettings
    embed_dim: PositiveInt
    tau: PositiveFloat


class WeightingSettings(Closed):
    """Weighted pooling, SPA and MPA only (eq. 4 and 7)."""

    epsilon: NonNegativeFloat
    size_lambda: NonNegativeFloat
    size_power: NonNegativeFloat


class PoolingSettings(Closed):
    """The pooling of one run."""

    name: PoolingName
    weighting: WeightingSettings | None


class OptimizerSettings(Closed):
    """SGD or AdamW, with the poly schedule."""

    name: Literal["sgd", "adamw"]
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    momentum: Share = 0.0
    """SGD's."""
    warmup: NonNegativeInt
    """Iterations over which the rate rises to `learning_rate`."""
    poly_power: NonNegativeFloat


class TrainingSettings(Closed):
    """Weak training."""

    iterations: dict[str, PositiveInt]
    """Per data set."""
    batch_size: PositiveInt
    expressions_per_picture: PositiveInt
    optimizer: OptimizerSettings
    resolution: PositiveInt
    """Side of the square crops in pixels."""
    scale: tuple[PositiveFloat, PositiveFloat]
    """The shorter side becomes `resolution` times a random factor between these."""
    flip: bool
    flip_words: Literal["swap", "keep"]
    """What a flip does to left and right in the expressions."""
    precision: Literal["float32", "bfloat16"]


class RunTrainingSettings(TrainingSettings):
    """Weak training of one run."""

    iterations: PositiveInt  # type: ignore[assignment]


class InferenceSettings(Closed):
    """Prediction and masks."""

    resolution: PositiveInt
    """Longer side of a picture in pixels when it enters the encoder."""
    scales: Annotated[list[PositiveFloat], Field(min_length=1)]
    flip: bool
    background: Annotated[float, Field(gt=0, lt=1)]
    """GAP and GMP: what the max-normalised activation must exceed."""
    crf: Literal["psa", "irn", "deeplab", "afa"]


class ResourceSettings(Closed):
    """What a rule asks of the machine."""

    threads: PositiveInt = 1
    mem_mb: PositiveInt
    runtime: PositiveInt
    """Minutes."""
    gpu: NonNegativeInt = 0


class Resources(Closed):
    """One entry per rule."""

    track: ResourceSettings
    configure: ResourceSettings
    fetch: ResourceSettings
    prepare: ResourceSettings
    train: ResourceSettings
    predict: ResourceSettings
    refine: ResourceSettings
    evaluate: ResourceSettings
    tabulate: ResourceSettings
    draw_masks: ResourceSettings
    draw_curves: ResourceSettings


class Settings(Closed):
    """A whole configuration file."""

    data_dir: str
    """Where fetched files (raw/) and records (records/) go."""
    results_dir: str
    experiments: str
    published: str
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)]
    tracking_uri: str | None
    """MLflow store: sqlite:///path, the address of a server, or null for none."""
    sources: dict[str, Source]
    datasets: dict[str, DatasetSettings]
    model: ModelSettings
    weighting: WeightingSettings
    training: TrainingSettings
    inference: InferenceSettings
    num_bootstrap: PositiveInt
    resources: Resources

    @model_validator(mode="after")
    def _names_are_known(self):
        for name, dataset in self.datasets.items():
            for source in dataset.sources:
                if source not in self.sources:
                    raise ValueError(
                        f"datasets.{name}.sources: there is no source {source!r}{_hint(source, self.sources)}"
                    )
            if name not in self.training.iterations:
                raise ValueError(f"training.iterations lacks the data set {name}")
        return self


class RunSettings(Closed):
    """All that decides a run's weights but the seed; `results/runs/<run>/config.yaml`."""

    run: str
    dataset: str
    records: str
    """Parquet file of the training records."""
    model: ModelSettings
    pooling: PoolingSettings
    training: RunTrainingSettings


class RowSettings(Closed):
    """One row of a table: a method."""

    method: str
    pooling: PoolingName
    crf: bool = False


class TableSettings(Closed):
    """One table of the paper as a grid of methods and data sets."""

    number: str
    """As the paper numbers it."""
    columns: dict[str, str]
    """Data set to the column's title."""
    rows: list[RowSettings]


class Experiments(Closed):
    """config/experiments.yaml."""

    tables: dict[str, TableSettings]


def run_settings(settings: Settings, dataset: str, pooling: PoolingName) -> RunSettings:
    """The run that trains `pooling` on `dataset`; it holds nothing that does not concern it."""
    training: dict[str, Any] = settings.training.model_dump() | {"iterations": settings.training.iterations[dataset]}
    return RunSettings(
        run=f"{dataset}-{pooling}",
        dataset=dataset,
        records=records_path(settings, dataset, settings.datasets[dataset].train),
        model=settings.model,
        pooling=PoolingSettings(name=pooling, weighting=settings.weighting if pooling in ("spa", "mpa") else None),
        training=RunTrainingSettings(**training),
    )


def records_path(settings: Settings, dataset: str, split: str) -> str:
    """Where `prepare` puts the records of a split."""
    return f"{settings.data_dir}/records/{dataset}/{split}.parquet"


def parse(schema: Any, values: Any, origin: str) -> Any:
    """`values` as `schema`, one of the classes here or a union of them.

    Raises ValueError naming `origin`, every wrong key and, for an unknown one, the nearest valid.
    """
    try:
        return TypeAdapter(schema).validate_python(values)
    except ValidationError as error:
        problems = "; ".join(_explain(schema, problem) for problem in error.errors())
        raise ValueError(f"{origin}: {problems}") from None


def _explain(schema: Any, problem: Any) -> str:
    """One of pydantic's problems as a clause that names the key and the mend."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key}{_hint(location[-1], _valid_keys(schema, location[:-1]))}"
    if problem["type"] == "missing":
        return f"the key {key} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message} (it is {problem['input']!r})" if key else message


def _valid_keys(schema: Any, location: list[str]) -> list[str]:
    """The keys allowed at `location` below `schema`, looked up in its JSON schema."""
    definitions = TypeAdapter(schema).json_schema()
    node: dict[str, Any] = definitions

    def resolve(node: dict[str, Any]) -> dict[str, Any]:
        return definitions["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node

    for part in location:
        node = resolve(node)
        if "items" in node:
            node = node["items"]
            continue
        choices = node.get("anyOf", node.get("oneOf", []))
        if "discriminator" in node and part in node["discriminator"]["mapping"]:
            node = {"$ref": node["discriminator"]["mapping"][part]}
            continue
        node = next((choice for choice in choices if "$ref" in choice), node)
        node = resolve(node)
        node = node.get("properties", {}).get(part, node.get("additionalProperties", {}))
        node = node if isinstance(node, dict) else {}
    return list(resolve(node).get("properties", {}))


def _hint(wrong: str, valid: Any) -> str:
    """A clause that names the nearest of the valid words, or lists them when none is near."""
    nearest = difflib.get_close_matches(wrong, valid, n=1)
    if nearest:
        return f"; did you mean {nearest[0]}?"
    return f"; valid are {', '.join(valid)}" if valid else ""
