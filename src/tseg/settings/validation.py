"""Check values from a file or a command line against a schema; report all errors in one sentence."""

import difflib
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from tseg.files import require_file


def parse(schema: Any, values: Any, origin: str) -> Any:
    """Parse `values` as an instance of `schema`, any type that pydantic knows.

    Raises ValueError, which names `origin`, every wrong key and, for an unknown key, the nearest valid one.
    """
    try:
        return TypeAdapter(schema).validate_python(values)
    except ValidationError as error:
        problems = "; ".join(_explain(schema, problem) for problem in error.errors())
        raise ValueError(f"{origin}: {problems}") from None


def _explain(schema: Any, problem: Any) -> str:
    """Word an error of pydantic as a clause that names the key and the fix."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key}{hint(location[-1], _valid_keys(schema, location[:-1]))}"
    if problem["type"] == "missing":
        return f"the key {key} is missing"
    if problem["type"] == "value_error":
        message = str(problem["ctx"]["error"])  # from a validator of this package, which names the value itself
    else:
        message = f"{problem['msg']} (it is {problem['input']!r})"
    return f"{key}: {message}" if key else message


def _valid_keys(schema: Any, location: list[str]) -> list[str]:
    """The valid keys at `location`, from the JSON schema of `schema`."""
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
        rest = node.get("additionalProperties")
        node = node.get("properties", {}).get(part, rest if isinstance(rest, dict) else {})
    return list(resolve(node).get("properties", {}))


def hint(wrong: str, valid: Iterable[str]) -> str:
    """A clause that names the valid word nearest to `wrong`, or lists all valid words if none is near."""
    valid = list(valid)
    nearest = difflib.get_close_matches(wrong, valid, n=1)
    if nearest:
        return f"; did you mean {nearest[0]}?"
    return f"; valid are {', '.join(valid)}" if valid else ""


def check_known(name: str, names: Iterable[str], complaint: str) -> None:
    """Raise ValueError unless `name` is in `names`: `complaint`, `name` and the nearest valid name."""
    if name not in names:
        raise ValueError(f"{complaint} {name!r}{hint(name, names)}")


def load_yaml(text: str, origin: str) -> Any:
    """Return the values in YAML `text`. Raises ValueError that names `origin`."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{origin} is not YAML: {' '.join(str(error).split())}; correct its YAML") from None


def read_yaml(path: Path, hint: str) -> Any:
    """Return the values in a YAML file. Raises ValueError that names the file, with `hint` if it is missing."""
    return load_yaml(require_file(path, hint).read_text(encoding="utf-8"), str(path))


@contextmanager
def prefix_errors(origin: str) -> Generator[None]:
    """Prefix the message of a ValueError with `origin`."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None
