from pathlib import Path
from typing import Any

import pytest
import yaml

from tseg.settings.catalogue import Catalogue, FilesSource, ShapesSource, SourceFile, check_sources, content_of
from tseg.settings.schema import Settings
from tseg.settings.validation import parse

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return parse(Catalogue, yaml.safe_load((ROOT / "config/sources.yaml").read_text()), "config/sources.yaml")


@pytest.fixture(scope="module")
def published(catalogue: Catalogue) -> dict[str, FilesSource]:
    return {name: source for name, source in catalogue.items() if isinstance(source, FilesSource)}


def files(published: dict[str, FilesSource]) -> list[SourceFile]:
    return [file for source in published.values() for file in source.files.values()]


def test_every_source_has_addresses_a_licence_a_citation_and_paths(published) -> None:
    assert len(published) >= 13
    for name, source in published.items():
        assert source.page.startswith("http"), name
        assert all((source.title, source.licence, source.citation, source.becomes)), name
        assert all(file.urls for file in source.files.values()), name


def test_every_address_and_every_checksum_belongs_to_one_file(published) -> None:
    urls = [url for file in files(published) for url in file.urls]
    checksums = [file.checksum for file in files(published) if file.checksum]
    assert len(set(urls)) == len(urls)
    assert len(set(checksums)) == len(checksums)
    assert all(file.checksum for file in files(published) if file.max_unpacked), "an archive without one"


def test_the_limit_of_an_archive_exceeds_its_size_but_not_by_much(published) -> None:
    archives = [file for file in files(published) if file.max_unpacked]
    assert len(archives) == 9
    assert all(file.size and file.size < file.max_unpacked < 25 * file.size for file in archives)
    for source in published.values():
        for name, file in source.files.items():
            assert bool(file.max_unpacked) == name.endswith((".zip", ".tar", ".tgz")), name


def strings(value: Any) -> list[str]:
    """All string values in a configuration."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize(("config", "raw"), [("config.yaml", "data/raw/"), ("paper.yaml", "data/paper/raw/")])
def test_a_configuration_reads_only_paths_that_its_sources_provide(catalogue: Catalogue, config: str, raw: str) -> None:
    values = yaml.safe_load((ROOT / "config" / config).read_text())
    assert {source for dataset in values["datasets"].values() for source in dataset["sources"]} <= set(catalogue)
    paths = {text.removeprefix(raw) for text in strings(values) if text.startswith(raw)}
    assert len(paths) > 5
    for path in paths:
        name, _, inside = path.partition("/")
        source = catalogue[name]
        if isinstance(source, ShapesSource):
            continue
        # A path that contains, equals or lies in one of the source's paths.
        assert not inside or any(
            Path(made).is_relative_to(inside) or Path(inside).is_relative_to(made) for made in source.becomes
        ), f"{path} is not provided by {name}"


FILE = {"urls": ["https://example.org/a.zip"]}
SOURCE = {"kind": "files", "title": "A", "page": "p", "licence": "l", "citation": "c", "becomes": ["a"]}


@pytest.mark.parametrize(
    ("name", "file_name", "file", "complaint"),
    [
        ("downloads", "a", {}, "raw/downloads is reserved for the downloaded files; give the source another name"),
        ("../a", "a", {}, "should match pattern"),
        (".a", "a", {}, "should match pattern"),
        ("a", "../a.zip", {}, "should match pattern"),
        ("a", "b/a.zip", {}, "should match pattern"),
        ("a", ".hidden", {}, "should match pattern"),
        ("a", "a", {"urls": ["file:///etc/passwd"]}, "should match pattern"),
        ("a", "a", {"checksum": "md5:123"}, "should match pattern"),
        ("a", "a", {"checksum": "sha1:" + "0" * 40}, "should match pattern"),
        ("a", "a", {"size": 0}, "should be greater than 0"),
        ("a", "a", {"cheksum": None}, "unknown key"),
    ],
)
def test_an_invalid_source_is_refused(name: str, file_name: str, file: dict, complaint: str) -> None:
    parse(Catalogue, {"a": {**SOURCE, "files": {"a.zip": FILE}}}, "test")
    with pytest.raises(ValueError, match=f"^test: .*{complaint}"):
        parse(Catalogue, {name: {**SOURCE, "files": {file_name: FILE | file}}}, "test")


@pytest.mark.parametrize("scale", ["config", "paper"])
def test_the_catalogue_has_every_source_of_a_scale_and_a_misspelt_one_is_named(
    catalogue: Catalogue, scale: str
) -> None:
    values = yaml.safe_load((ROOT / f"config/{scale}.yaml").read_text())
    check_sources(parse(Settings, values, "test"), catalogue)
    values["datasets"]["refcoco"]["sources"] = ["refcocco"]
    with pytest.raises(ValueError, match=r"datasets\.refcoco\.sources: .* no source 'refcocco'; did you mean refcoco"):
        check_sources(parse(Settings, values, "test"), catalogue)


def test_a_mirror_or_a_licence_changes_no_content_but_a_checksum_does(published: dict[str, FilesSource]) -> None:
    source = published["voc2012"]
    (name, file), *_ = source.files.items()

    def changed(**fields: Any) -> dict[str, Any]:
        return content_of(source.model_copy(update={"files": source.files | {name: file.model_copy(update=fields)}}))

    assert changed(urls=[*file.urls, "https://mirror.example/a.tar"], also_called=["b.tar"]) == content_of(source)
    assert content_of(source.model_copy(update={"licence": "another"})) == content_of(source)
    assert changed(checksum=f"md5:{'0' * 32}") != content_of(source)
    assert "urls" not in str(content_of(source))
