"""The schema of config/sources.yaml: every source of data and weights, its files, their addresses and checksums."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from tseg.settings.schema import Settings, StrictModel
from tseg.settings.validation import check_known


class ShapesSource(StrictModel):
    """The embedded data set, drawn by `tseg fetch`."""

    kind: Literal["shapes"]
    sets: Annotated[list[Literal["phrasecut", "coco", "voc"]], Field(min_length=1)]
    """The image sets to draw."""
    num_train: PositiveInt
    num_val: PositiveInt
    seed: NonNegativeInt


class SourceFile(StrictModel):
    """A file on the web, or one that has to be downloaded by hand."""

    urls: list[Annotated[str, Field(pattern="^https?://")]] = Field(default_factory=list)
    """Addresses in order of preference; empty if the file has to be downloaded by hand."""
    size: PositiveInt | None = None
    """Size in bytes. Default: unknown."""
    checksum: Annotated[str, Field(pattern="^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")] | None = None
    """The published checksum. Default: none is published; the first file is pinned, and later ones must equal it."""
    num_records: PositiveInt | None = None
    """Number of entries, for a file that is a JSON list. Default: not checked."""
    max_unpacked: PositiveInt | None = None
    """Upper limit of the unpacked size in bytes, for an archive. Default: the file is not unpacked."""
    optional: bool = False
    """Whether the source is complete without it. Default: no. If it cannot be had, `tseg fetch` says so and goes on."""
    also_called: list[str] = Field(default_factory=list)
    """Other names of copies of the file; `tseg fetch --from` looks for them too."""


class FilesSource(StrictModel):
    """Files that belong together and become the folder raw/<source>."""

    kind: Literal["files"]
    title: str
    page: str
    """Address of the web page of the source, where the files can be downloaded by hand."""
    licence: str
    citation: str
    files: Annotated[dict[Annotated[str, Field(pattern=r"^[^/\\.][^/\\]*$")], SourceFile], Field(min_length=1)]
    """File name to file."""
    becomes: Annotated[list[str], Field(min_length=1)]
    """Paths below raw/<source> that must exist when all files are unpacked."""


def _not_downloads(name: str) -> str:
    if name == "downloads":
        raise ValueError("raw/downloads is reserved for the downloaded files; give the source another name")
    return name


def content_of(source: ShapesSource | FilesSource) -> dict[str, Any]:
    """What decides the files of a source, as JSON has it: not where they come from, nor what is said of them."""
    described = {"title", "page", "licence", "citation"}
    places = {"files": {"__all__": {"urls", "also_called"}}}
    return source.model_dump(mode="json", exclude=dict.fromkeys(described, True) | places)


Source = Annotated[ShapesSource | FilesSource, Field(discriminator="kind")]
SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9+._-]*$"), AfterValidator(_not_downloads)]
Catalogue = dict[SourceName, Source]
"""Name to source."""


def check_sources(settings: Settings, catalogue: Catalogue) -> None:
    """Raise ValueError unless the catalogue has every source that a data set names."""
    for name, dataset in settings.datasets.items():
        for source in dataset.sources:
            check_known(source, catalogue, f"datasets.{name}.sources: {settings.sources} has no source")
