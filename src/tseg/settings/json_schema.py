"""JSON schemas of the configuration files, for editors: `python -m tseg.settings.json_schema` writes them."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tseg.settings.catalogue import Catalogue
from tseg.settings.experiments import Experiments, LabelSets
from tseg.settings.schema import Settings

FOLDER = Path("config/schema")
"""Below the root of the repository."""
SCHEMAS: dict[str, Any] = {
    "settings.json": Settings,
    "experiments.json": Experiments,
    "label_sets.json": LabelSets,
    "sources.json": Catalogue,
}


def json_schema(name: str) -> str:
    """The text of `FOLDER / name`."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | TypeAdapter(SCHEMAS[name]).json_schema()
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in SCHEMAS:
        (FOLDER / name).write_text(json_schema(name), encoding="utf-8")
