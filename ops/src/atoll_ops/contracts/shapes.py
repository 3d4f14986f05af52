"""What a JSON Schema says, one alternative at a time: the form in which two of them can be compared.

`{"type": ["string", "null"], "maxLength": 5}` and `{"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}]}`
mean the same. Both become two *options*, each with one type (or none: it takes anything) and only the keywords that say
something about that type. Annotations (title, description, examples, …) say nothing about a value and are dropped.

A keyword that is not known here is kept under `unknown`, so that a rule can say that it cannot tell, rather than that
all is well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

_ANNOTATIONS = frozenset(
    {
        "$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples",
        "deprecated", "readOnly", "writeOnly",
    }
)  # fmt: skip
#: A keyword that bounds from below, from above, and what it measures.
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
#: Keywords that a taker can only rely on if the giver says exactly the same.
SAME = ("pattern", "format", "multipleOf", "uniqueItems")
_OF_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_OF_TYPE = {
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "integer": _OF_NUMBERS,
    "number": _OF_NUMBERS,
    "array": frozenset({"items", "minItems", "maxItems", "uniqueItems"}),
    "object": frozenset({"properties", "required", "additionalProperties", "minProperties", "maxProperties"}),
    "boolean": frozenset[str](),
    "null": frozenset[str](),
}
_KNOWN = frozenset[str]().union(*_OF_TYPE.values())
_UNFOLDED = frozenset({"type", "enum", "const", "anyOf", "oneOf", "$ref"})
_REFS_MAX = 100
_OPTIONS_MAX = 64

Schema = Any
"""A JSON Schema: a mapping, or true or false."""


class SchemaError(ValueError):
    """A schema that cannot be read as one: the text says where it stops making sense."""


class Option(msgspec.Struct, frozen=True):
    """One alternative of a schema."""

    type: str | None  # None: values of every type
    values: tuple[Any, ...] | None  # of enum or const
    keywords: Mapping[str, Any]  # those known, of this type
    unknown: Mapping[str, Any]  # those that no rule here understands

    @property
    def fields(self) -> Mapping[str, Schema]:
        """Schemas of the named fields."""
        found: Mapping[str, Schema] = self.keywords.get("properties", {})
        return found

    @property
    def required(self) -> frozenset[str]:
        """Names of the fields that are always there."""
        return frozenset(self.keywords.get("required", ()))


def options(schema: Schema, root: Schema) -> list[Option]:
    """The alternatives of a schema inside the document `root`; none for `false`. Raises SchemaError."""
    found = [option for node in _unfolded(schema, root, 0) for option in _typed(node)]
    if len(found) > _OPTIONS_MAX:
        raise SchemaError(f"{len(found)} alternatives in one place: at most {_OPTIONS_MAX} are compared")
    return found


def _unfolded(schema: Schema, root: Schema, depth: int) -> Iterator[dict[str, Any]]:
    """The schema without references and alternatives, each with the words around it."""
    if schema is False:
        return
    if depth > _REFS_MAX:
        raise SchemaError("$ref: expected a schema, it leads back to itself")
    node = _mapping(schema)
    around = {name: value for name, value in node.items() if name not in ("$ref", "anyOf", "oneOf")}
    if "$ref" in node:
        inner: list[Schema] = [_target(str(node["$ref"]), root)]
    elif "anyOf" in node or "oneOf" in node:
        inner = list(node.get("anyOf") or node["oneOf"])
    else:
        yield node
        return
    for one in inner:
        for found in _unfolded(one, root, depth + 1):
            yield around | found


def _mapping(schema: Schema) -> dict[str, Any]:
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        raise SchemaError(f"expected a schema, found {str(schema)[:40]!r}")
    return schema


def _target(reference: str, root: Schema) -> Schema:
    """What a reference within the document points at."""
    if not reference.startswith("#"):
        raise SchemaError(f"$ref {reference}: expected one within the document, as in #/$defs/Line")
    found = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            raise SchemaError(f"$ref {reference}: expected something there, it leads nowhere")
        found = found[name]
    return found


def _typed(node: Mapping[str, Any]) -> Iterator[Option]:
    """One option a type."""
    values = tuple(node["enum"]) if "enum" in node else (node["const"],) if "const" in node else None
    named = node.get("type")
    types: list[str | None] = [named] if isinstance(named, str) else list(named or _types_of(values))
    for kind in types:
        if kind is not None and kind not in _OF_TYPE:
            raise SchemaError(f"type {kind!r}: expected one of {', '.join(_OF_TYPE)}")
        mine = None if values is None else tuple(value for value in values if takes(kind, type_of(value)))
        if mine == ():
            continue  # a type beside an enum that has no value of it
        about = _KNOWN if kind is None else _OF_TYPE[kind]
        unknown = node.keys() - _KNOWN - _ANNOTATIONS - _UNFOLDED
        yield Option(kind, mine, _picked(node, about), _picked(node, unknown))


def _types_of(values: tuple[Any, ...] | None) -> list[str | None]:
    return [None] if values is None else list(dict.fromkeys(type_of(value) for value in values))


def _picked(node: Mapping[str, Any], names: frozenset[str] | set[str]) -> dict[str, Any]:
    return {name: node[name] for name in sorted(names) if name in node}


def type_of(value: object) -> str:
    """The JSON type of a value, the narrowest."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    plain = {float: "number", str: "string", list: "array", dict: "object", type(None): "null"}
    return plain[type(value)]


def takes(wide: str | None, narrow: str | None) -> bool:
    """Whether every value of the type `narrow` is one of `wide`."""
    return wide is None or wide == narrow or (wide == "number" and narrow == "integer")
