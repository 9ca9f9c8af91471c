"""The schemas of docs/schemas, as judges of what commands print."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.testbed.conftest import PROJECT

#: Name, like "ps" -> the schema.
SCHEMAS: dict[str, dict[str, Any]] = {
    path.name.removesuffix(".schema.json"): json.loads(path.read_text())
    for path in sorted((PROJECT / "docs" / "schemas").glob("*.schema.json"))
}
_REGISTRY: Registry[Any] = Registry().with_resources(
    (f"{name}.schema.json", Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)


def faults(name: str, value: object) -> list[str]:
    """What is wrong with a value by the schema of this name."""
    validator = Draft202012Validator(SCHEMAS[name], registry=_REGISTRY)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
