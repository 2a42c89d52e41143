"""config/sources.yaml: every source of data and weights, where its files come from, how they are known to be right."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from tseg.settings.schema import Settings, StrictModel
from tseg.settings.validation import check_known


class ShapesSource(StrictModel):
    """The embedded data set, drawn by `tseg fetch`."""

    kind: Literal["shapes"]
    sets: Annotated[list[Literal["phrasecut", "coco", "voc"]], Field(min_length=1)]
    """Which of its image sets."""
    num_train: PositiveInt
    num_val: PositiveInt
    seed: NonNegativeInt


class SourceFile(StrictModel):
    """A file on the web, or one that a person places."""

    urls: list[Annotated[str, Field(pattern="^https?://")]] = Field(default_factory=list)
    """Addresses in order of preference; none where only a person can fetch it."""
    size: PositiveInt | None = None
    """Bytes; null where nobody says."""
    checksum: Annotated[str, Field(pattern="^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")] | None = None
    """As published; null where none is: then the file that comes first is pinned, and later ones must equal it."""
    num_records: PositiveInt | None = None
    """A JSON list: how many entries it must have."""
    max_unpacked: PositiveInt | None = None
    """An archive: what it may unfold to, in bytes. Null: the file is used as it is."""
    also_called: list[str] = Field(default_factory=list)
    """Names under which copies of it circulate: `tseg fetch --from` looks for them too."""


class FilesSource(StrictModel):
    """Files that belong together: they become the folder raw/<source>."""

    kind: Literal["files"]
    title: str
    page: str
    """Where a person reads about it, and fetches it if need be."""
    licence: str
    citation: str
    files: Annotated[dict[Annotated[str, Field(pattern=r"^[^/\\.][^/\\]*$")], SourceFile], Field(min_length=1)]
    """By name."""
    becomes: Annotated[list[str], Field(min_length=1)]
    """What must be there, below raw/<source>, when all is unpacked."""


def _not_downloads(name: str) -> str:
    if name == "downloads":
        raise ValueError("raw/downloads is where the files come to; give the source another name")
    return name


Source = Annotated[ShapesSource | FilesSource, Field(discriminator="kind")]
SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9+._-]*$"), AfterValidator(_not_downloads)]
Catalogue = dict[SourceName, Source]
"""Name of a source to the source."""


def check_sources(settings: Settings, catalogue: Catalogue) -> None:
    """Raise ValueError unless the catalogue has every source that a data set names."""
    for name, dataset in settings.datasets.items():
        for source in dataset.sources:
            check_known(source, catalogue, f"datasets.{name}.sources: {settings.sources} has no source")
