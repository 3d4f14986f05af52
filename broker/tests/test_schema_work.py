"""A schema's work is bounded before it sees a value; what honest schemas need is far below the bound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bus_helpers import MESH, PLACED, Shop, event, hello

from atoll_broker import schema_work
from atoll_broker.testing import MemoryBroker

REPOSITORY = Path(__file__).parents[2]
Schema = dict[str, Any]


def chain(steps: int, **made: Any) -> Schema:
    """$defs d0 … where each applies the next twice; `made` as the last."""
    twice = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(steps)}
    return {"$ref": "#/$defs/d0", "$defs": twice | {f"d{steps}": made or {"type": "integer"}}}


def down(keyword: str, times: int) -> Schema:
    """Applies itself so often to each member or item of the value."""
    inner = {"$ref": "#"}
    one = {"properties": {"a": inner}} if keyword == "properties" else {keyword: inner}
    return {"allOf": [one] * times}


@pytest.mark.parametrize(
    "schema",
    [
        chain(40),
        {"$defs": {"x": chain(2)["$defs"]}, "allOf": [{"anyOf": [{"type": "string"}] * 200}] * 60},
        down("properties", 2),
        down("items", 2),
        {"allOf": [{"items": {"$ref": "#/$defs/n"}}] * 2,
         "$defs": {"n": {"oneOf": [{"additionalProperties": {"$ref": "#"}}] * 2}}},
        {"$ref": "#here", "$defs": {"x": {"$anchor": "here", "allOf": [{"properties": {"a": {"$ref": "#here"}}}] * 2}}},
        {"allOf": [{"$ref": "#"}]},
        {"$ref": "#/$defs/none"},
        {"$ref": "https://elsewhere.example/schema"},
        {"properties": {"a": {"$id": "https://a.example/", "$ref": "#/$defs/b"}}},
        {"properties": {f"p{n}": {"type": "string"} for n in range(5000)}},
    ],
    ids=["doubling", "wide", "deep", "deep lists", "two steps", "anchors", "itself", "nowhere", "away", "id", "many"],
)  # fmt: skip
def test_too_much_work_is_refused_by_hello(schema: Schema) -> None:
    broker = MemoryBroker(MESH)
    peer = broker.connect("shop")
    peer.say("HELLO", **hello("shop", contracts={"publishes": {PLACED: schema}}))
    (answer,) = peer.heard()
    assert (answer["code"], answer["field"]) == ("CONTRACT", f"contracts.publishes.{PLACED}")


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"n": {"type": "integer"}, "next": {"$ref": "#"}}},
        {"$ref": "#/$defs/tree",
         "$defs": {"tree": {"properties": {"n": {}, "kids": {"items": {"$ref": "#/$defs/tree"}}}}}},
        {"anyOf": [{"properties": {"n": {"const": n}}, "required": ["n"]} for n in range(50)]},
        {"properties": {f"money{n}": {"$ref": "#/$defs/money"} for n in range(300)},
         "$defs": {"money": {"allOf": [{"type": "object"}, {"required": ["amount"]}]}}},
        chain(6, required=["n"]),
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"n": {"type": "integer"}},
         "properties": {"n": {"$ref": "#/definitions/n"}}, "additionalProperties": True},
    ],
    ids=["list", "tree", "union", "money", "some", "draft 7"],
)  # fmt: skip
def test_what_honest_schemas_need_is_taken(schema: Schema) -> None:
    broker = MemoryBroker(MESH)
    shop = Shop(broker, contracts={"publishes": {PLACED: schema}})
    assert shop.publish(event(1))[0]["refused"] == []


def test_every_schema_of_the_shop_is_far_below_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_work, "WORK_MAX", 50)
    files = list(REPOSITORY.glob("services/*/contract/publishes/*.json"))
    assert len(files) > 5
    for path in files:
        schema_work.check(json.loads(path.read_text()))
