"""The rules of contracts, each with what breaks it and what looks like a break and is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll_ops.contracts.rules import additions, reads


def having(*required: str, **fields: Any) -> dict[str, Any]:
    """The schema of an object with these fields."""
    return {"type": "object", "properties": fields, "required": list(required)}


TEXT, NUMBER, WHOLE = {"type": "string"}, {"type": "number"}, {"type": "integer"}
OR_NULL = {"anyOf": [TEXT, {"type": "null"}]}
LIST = {"type": "array", "items": having("sku", sku=TEXT)}

#: What a consumer's copy says, what its publisher's schema says, and (field, rule) of every finding.
READS: dict[str, tuple[Any, Any, list[tuple[str, str]]]] = {
    "unknown field": (having(a=TEXT), having(), [("data.a", "field")]),
    "unknown field deep inside": (
        having(lines={"type": "array", "items": having(ean=TEXT)}), having(lines=LIST), [("data.lines[].ean", "field")],
    ),
    "optional field required": (having("a", a=TEXT), having(a=TEXT), [("data.a", "required")]),
    "required without being described": (having("a"), having(), [("data.a", "required")]),
    "null not taken": (having(a=TEXT), having(a=OR_NULL), [("data.a", "type")]),
    "null not taken, said by a list": (having(a=TEXT), having(a={"type": ["string", "null"]}), [("data.a", "type")]),
    "another type": (having(a=TEXT), having(a=WHOLE), [("data.a", "type")]),
    "fractions not taken": (having(a=WHOLE), having(a=NUMBER), [("data.a", "type")]),
    "anything not taken": (having(a=TEXT), having(a={}), [("data.a", "type")]),
    "unknown value": (having(a={"enum": ["x"]}), having(a={"enum": ["x", "y"]}), [("data.a", "value")]),
    "values nobody named": (having(a={"enum": ["x"]}), having(a=TEXT), [("data.a", "value")]),
    "true is not 1": (having(a={"enum": [1]}), having(a={"enum": [True]}), [("data.a", "type")]),
    "longer text": (having(a=TEXT | {"maxLength": 9}), having(a=TEXT | {"maxLength": 10}), [("data.a", "bound")]),
    "unbounded text": (having(a=TEXT | {"maxLength": 9}), having(a=TEXT), [("data.a", "bound")]),
    "smaller number": (having(a=WHOLE | {"minimum": 1}), having(a=WHOLE | {"minimum": 0}), [("data.a", "bound")]),
    "bound itself": (
        having(a=WHOLE | {"exclusiveMinimum": 1}), having(a=WHOLE | {"minimum": 1}), [("data.a", "bound")],
    ),
    "another pattern": (having(a=TEXT | {"pattern": "^a"}), having(a=TEXT | {"pattern": "^b"}), [("data.a", "bound")]),
    "a value over the bound": (having(a=TEXT | {"maxLength": 1}), having(a={"enum": ["xx"]}), [("data.a", "bound")]),
    "closed to new fields": (having(a=TEXT) | {"additionalProperties": False}, having(a=TEXT), [("data", "closed")]),
    "keyword not understood": (having(a=TEXT | {"not": {"const": "x"}}), having(a=TEXT), [("data.a", "keyword")]),
    "reference out of the document": (having(a={"$ref": "http://x/y"}), having(a=TEXT), [("data", "schema")]),
    "reference that leads nowhere": (having(a={"$ref": "#/$defs/A"}), having(a=TEXT), [("data", "schema")]),
    "a type there is none of": (having(a={"type": "text"}), having(a=TEXT), [("data", "schema")]),
}  # fmt: skip

#: The same where all is well.
READS_WELL: dict[str, tuple[Any, Any]] = {
    "fewer fields": (having("a", a=TEXT), having("a", "b", a=TEXT, b=WHOLE)),
    "nothing but an object": ({"type": "object"}, having("a", a=TEXT)),
    "takes more types": (having(a=OR_NULL), having(a=TEXT)),
    "whole numbers are numbers": (having(a=NUMBER), having(a=WHOLE)),
    "more values": (having(a={"enum": ["x", "y"]}), having(a={"const": "x"})),
    "tighter bound": (having(a=TEXT | {"maxLength": 9}), having(a=TEXT | {"maxLength": 8})),
    "tighter by being strict": (having(a=WHOLE | {"minimum": 1}), having(a=WHOLE | {"exclusiveMinimum": 1})),
    "inside a strict bound": (having(a=WHOLE | {"exclusiveMinimum": 1}), having(a=WHOLE | {"minimum": 2})),
    "values inside the bound": (having(a=TEXT | {"maxLength": 2}), having(a={"enum": ["xx", "y"]})),
    "words are free": (having(a=TEXT | {"title": "A"}) | {"description": "x"}, having(a=TEXT | {"examples": ["b"]})),
    "by reference": (having(a={"$ref": "#/$defs/A"}) | {"$defs": {"A": TEXT}}, having(a=TEXT)),
    "a tree": (
        having(t={"$ref": "#/$defs/T"}) | {"$defs": {"T": having(t={"$ref": "#/$defs/T"})}},
        having(t={"$ref": "#/$defs/T"}) | {"$defs": {"T": having(t={"$ref": "#/$defs/T"})}},
    ),
    "the same that is not understood": (having(a=TEXT | {"not": {}}), having(a=TEXT | {"not": {}})),
}

#: A publisher's schema, its successor, and (field, rule) of every finding.
ADDITIONS: dict[str, tuple[Any, Any, list[tuple[str, str]]]] = {
    "field gone": (having("a", a=TEXT), having(), [("data.a", "removed")]),
    "field renamed": (having("a", a=TEXT), having(b=TEXT), [("data.a", "removed")]),
    "required to optional": (having("a", a=TEXT), having(a=TEXT), [("data.a", "required")]),
    "optional to required": (having(a=TEXT), having("a", a=TEXT), [("data.a", "required")]),
    "new and required": (having(), having("a", a=TEXT), [("data.a", "required")]),
    "type changed": (having(a=TEXT), having(a=WHOLE), [("data.a", "type")]),
    "type narrowed": (having(a=OR_NULL), having(a=TEXT), [("data.a", "type")]),
    "type widened": (having(a=TEXT), having(a=OR_NULL), [("data.a", "type")]),
    "value added": (having(a={"enum": ["x"]}), having(a={"enum": ["x", "y"]}), [("data.a", "value")]),
    "value gone": (having(a={"enum": ["x", "y"]}), having(a={"enum": ["x"]}), [("data.a", "value")]),
    "bound loosened": (having(a=TEXT | {"maxLength": 8}), having(a=TEXT | {"maxLength": 9}), [("data.a", "bound")]),
    "bound tightened": (having(a=TEXT | {"maxLength": 9}), having(a=TEXT | {"maxLength": 8}), [("data.a", "bound")]),
    "bound gone": (having(a=TEXT | {"maxLength": 9}), having(a=TEXT), [("data.a", "bound")]),
    "pattern": (having(a=TEXT), having(a=TEXT | {"pattern": "^a"}), [("data.a", "bound")]),
    "items": (having(a=LIST), having(a={"type": "array", "items": TEXT}), [("data.a[]", "type")]),
    "in a list": (
        having(a=LIST), having(a={"type": "array", "items": having(sku=TEXT)}), [("data.a[].sku", "required")],
    ),
    "closed": (having(), having() | {"additionalProperties": False}, [("data", "closed")]),
    "not understood": (having(a=TEXT), having(a=TEXT | {"not": {}}), [("data.a", "keyword")]),
}  # fmt: skip

ADDITIONS_WELL: dict[str, tuple[Any, Any]] = {
    "an optional field": (having("a", a=TEXT), having("a", a=TEXT, b=WHOLE)),
    "an optional field in a list": (
        having(a=LIST),
        having(a={"type": "array", "items": having("sku", sku=TEXT, ean=TEXT)}),
    ),
    "words": (having(a=TEXT), having(a=TEXT | {"description": "better"}) | {"title": "t"}),
    "the same, written otherwise": (having(a=OR_NULL), having(a={"type": ["null", "string"]})),
    "moved into a definition": (having(a=TEXT), having(a={"$ref": "#/$defs/A"}) | {"$defs": {"A": TEXT}}),
    "order of values": (having(a={"enum": ["x", "y"]}), having(a={"enum": ["y", "x"]})),
}


@pytest.mark.parametrize(("wanted", "promised", "found"), READS.values(), ids=READS)
def test_a_copy_that_reads_beyond_its_publisher_is_found(
    wanted: Any, promised: Any, found: list[tuple[str, str]]
) -> None:
    assert [(one.field, one.rule) for one in reads(wanted, promised)] == found


@pytest.mark.parametrize(("wanted", "promised"), READS_WELL.values(), ids=READS_WELL)
def test_a_copy_that_fits_is_left_alone(wanted: Any, promised: Any) -> None:
    assert reads(wanted, promised) == []


@pytest.mark.parametrize(("old", "new", "found"), ADDITIONS.values(), ids=ADDITIONS)
def test_what_is_more_than_an_addition_is_found(old: Any, new: Any, found: list[tuple[str, str]]) -> None:
    assert [(one.field, one.rule) for one in additions(old, new)] == found


@pytest.mark.parametrize(("old", "new"), ADDITIONS_WELL.values(), ids=ADDITIONS_WELL)
def test_an_addition_is_left_alone(old: Any, new: Any) -> None:
    assert additions(old, new) == []


_leaves = st.sampled_from([TEXT, WHOLE, NUMBER, OR_NULL, {}, TEXT | {"maxLength": 3}, {"enum": ["x", "y"]}])
_schemas = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.dictionaries(st.sampled_from("abc"), st.tuples(inner, st.booleans()), max_size=3).map(
            lambda fields: having(
                *(name for name, (_, always) in fields.items() if always),
                **{name: schema for name, (schema, _) in fields.items()},
            )
        ),
    ),
    max_leaves=6,
)


@given(_schemas)
def test_a_schema_fits_itself_and_is_its_own_successor(schema: Any) -> None:
    assert reads(schema, schema) == []
    assert additions(schema, schema) == []


@given(_schemas, _schemas, _schemas)
def test_who_fits_a_publisher_fits_its_next_version(copy: Any, old: Any, new: Any) -> None:
    """What makes it enough to check each rule by itself. Both ways: the log holds events of both versions."""
    if additions(old, new) == []:
        assert reads(old, new) == []
        if reads(copy, old) == []:
            assert reads(copy, new) == []


@given(_schemas, st.sampled_from("xyz"), _schemas)
def test_a_new_optional_field_is_an_addition_wherever_it_is_put(schema: Any, name: str, field: Any) -> None:
    def grown(node: Any) -> Any:
        if isinstance(node, dict) and node.get("type") == "object":
            properties = {key: grown(inner) for key, inner in node["properties"].items()}
            return node | {"properties": properties | {name: field}}
        return node | {"items": grown(node["items"])} if isinstance(node, dict) and "items" in node else node

    assert additions(schema, grown(schema)) == []
    assert reads(schema, grown(schema)) == []
