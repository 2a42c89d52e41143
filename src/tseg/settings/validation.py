"""Values from a file or a command line against the schema; what is wrong in them as one sentence."""

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter, ValidationError


def parse(schema: Any, values: Any, origin: str) -> Any:
    """`values` as `schema`, one of the classes of `tseg.settings.schema` or a union of them.

    Raises ValueError naming `origin`, every wrong key and, for an unknown one, the nearest valid.
    """
    try:
        return TypeAdapter(schema).validate_python(values)
    except ValidationError as error:
        problems = "; ".join(_explain(schema, problem) for problem in error.errors())
        raise ValueError(f"{origin}: {problems}") from None


def _explain(schema: Any, problem: Any) -> str:
    """One of pydantic's problems as a clause that names the key and the fix."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key}{hint(location[-1], _valid_keys(schema, location[:-1]))}"
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


def hint(wrong: str, valid: Iterable[str]) -> str:
    """A clause that names the nearest of the valid words, or lists them when none is near."""
    valid = list(valid)
    nearest = difflib.get_close_matches(wrong, valid, n=1)
    if nearest:
        return f"; did you mean {nearest[0]}?"
    return f"; valid are {', '.join(valid)}" if valid else ""


def check_known(name: str, names: Iterable[str], complaint: str) -> None:
    """Raise ValueError, `complaint` with the name and the nearest valid one, unless `name` is among `names`."""
    if name not in names:
        raise ValueError(f"{complaint} {name!r}{hint(name, names)}")
