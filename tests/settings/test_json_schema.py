"""The JSON schemas of config/schema are up to date, accept the configuration and are as strict as `tseg.settings`."""

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tseg.settings.json_schema import FOLDER, SCHEMAS, json_schema

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "config").glob("*.yaml"))


def schema_of(path: Path) -> dict[str, Any]:
    """The schema that the first line of a configuration file names."""
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text(encoding="utf-8"))
    assert named
    return yaml.safe_load((path.parent / named[1]).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_committed_schema_is_the_generated_one(name: str) -> None:
    committed = (ROOT / FOLDER / name).read_text(encoding="utf-8")
    assert committed == json_schema(name), "run `python -m tseg.settings.json_schema` and commit config/schema"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_configuration_file_is_valid_by_the_schema_that_it_names(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), schema_of(path))


def test_a_misspelt_key_is_refused() -> None:
    path = ROOT / "config/config.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings["inference"]["backgruond"] = settings["inference"].pop("background")
    with pytest.raises(jsonschema.ValidationError, match="backgruond"):
        jsonschema.validate(settings, schema_of(path))


def test_every_key_of_the_configuration_is_described_in_the_readme() -> None:
    readme = (ROOT / "config/README.md").read_text(encoding="utf-8")
    settings = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    assert [key for key in settings if f"\n| `{key}` |" not in readme] == []
