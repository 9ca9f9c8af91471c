"""A JSON schema of the topology file, for editors: they complete keys, and underline what can't be.

What refers to what (a link's hosts, an app's needs) and what makes no sense together only `testbed validate` knows.
"""

from __future__ import annotations

from typing import Any

from testbed.topology.model import DIRECTION, Topology

_VARIABLE = {"type": "string", "pattern": r"\$\{"}  # what it stands for, only the environment knows


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12."""
    made = _tidy(Topology.model_json_schema())
    link = made["$defs"]["Link"]
    link["patternProperties"] = {"^[a-z0-9-]+->[a-z0-9-]+$": {"$ref": "#/$defs/LinkSettings"}}
    del link["properties"][DIRECTION]
    for key in ("hosts", "routers"):  # `alice:` is as good as `alice: {}`
        parts = made["properties"][key]["patternProperties"]
        parts |= {name: {"anyOf": [part, {"type": "null"}]} for name, part in parts.items()}
    made["anyOf"] = [{"required": made.pop("required")}, {"required": ["include"]}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A topology of testbed", **made}


def _tidy(made: Any) -> Any:
    """Without what pydantic says of Python and not of the file: its titles, defaults in SI units, and None.

    A variable may stand for each scalar that has to be of some form.
    """
    if isinstance(made, list):
        return [_tidy(item) for item in made]
    if not isinstance(made, dict):
        return made
    tidy = {key: _tidy(value) for key, value in made.items() if key not in ("title", "default")}
    if tidy.get("anyOf", [{}])[-1] == {"type": "null"}:
        rest = tidy.pop("anyOf")[:-1]
        tidy = {**(rest[0] if len(rest) == 1 else {"anyOf": rest}), **tidy}
    if "patternProperties" in tidy:
        tidy.setdefault("additionalProperties", False)
        tidy.pop("propertyNames", None)
    if "properties" in made:  # its keys are the file's, also one that is called as these are
        tidy["properties"] = {key: _tidy(value) for key, value in made["properties"].items()}
    if tidy.keys() & {"pattern", "enum", "const", "format"} or tidy.get("type") in ("integer", "number", "boolean"):
        described = {"description": tidy.pop("description")} if "description" in tidy else {}
        return {"anyOf": [tidy, _VARIABLE], **described}
    return tidy
