"""Consumer ⊆ publisher, for every topic: what a consumer reads, its publisher promises, at least as strictly."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from fleet import REPOSITORY
from topology import GROUPS, PREFIXES, SERVICES, TOPICS


def schemas(service: str, kind: str) -> dict[str, dict[str, Any]]:
    """Topic -> schema of a service's `publishes` or `consumes`."""
    folder = REPOSITORY / "services" / service / "contract" / kind
    suffix = ".schema.json"
    return {path.name.removesuffix(suffix): json.loads(path.read_text()) for path in sorted(folder.glob(f"*{suffix}"))}


CONSUMED = [(consumer, topic) for consumer, topics in GROUPS.items() for topic in sorted(topics)]


def test_every_topic_has_one_publisher_who_owns_its_schema() -> None:
    owned = {topic: service for service in SERVICES for topic in schemas(service, "publishes")}
    assert owned == TOPICS


@pytest.mark.parametrize("service", SERVICES)
def test_a_consumer_keeps_a_copy_of_what_it_reads(service: str) -> None:
    assert set(schemas(service, "consumes")) == GROUPS[service]


@pytest.mark.parametrize("service", SERVICES)
def test_every_schema_is_a_valid_schema(service: str) -> None:
    for topic, schema in chain(schemas(service, "publishes").items(), schemas(service, "consumes").items()):
        jsonschema_rs.validator_for(schema)
        assert schema.get("type") == "object" or "$ref" in schema, topic


@pytest.mark.parametrize(("consumer", "topic"), CONSUMED)
def test_a_consumer_reads_nothing_that_its_publisher_does_not_promise(consumer: str, topic: str) -> None:
    wanted = schemas(consumer, "consumes")[topic]
    promised = schemas(TOPICS[topic], "publishes")[topic]
    problems = list(beyond(wanted, promised, wanted, promised, "data"))
    assert not problems, f"{consumer} consumes {topic}: {problems}"


def beyond(wanted: Any, promised: Any, wanted_root: Any, promised_root: Any, at: str) -> Any:
    """What `wanted` reads that `promised` does not promise, as texts; empty when consumer ⊆ publisher."""
    wanted, promised = resolve(wanted, wanted_root), resolve(promised, promised_root)
    kinds = types_of(promised) - types_of(wanted)
    if kinds:
        yield f"{at}: the publisher may send {sorted(kinds)}, the consumer takes {sorted(types_of(wanted))}"
    for name, inner in wanted.get("properties", {}).items():
        if name not in promised.get("properties", {}):
            yield f"{at}.{name}: the publisher has no such field"
            continue
        if name in wanted.get("required", []) and name not in promised.get("required", []):
            yield f"{at}.{name}: the consumer requires it, the publisher may leave it out"
        yield from beyond(inner, promised["properties"][name], wanted_root, promised_root, f"{at}.{name}")
    if "items" in wanted and "items" in promised:
        yield from beyond(wanted["items"], promised["items"], wanted_root, promised_root, f"{at}[]")
    if "enum" in wanted:
        extra = set(promised.get("enum", ["anything"])) - set(wanted["enum"])
        if extra:
            yield f"{at}: the publisher may send {sorted(extra)}, the consumer knows {wanted['enum']}"


def resolve(schema: Any, root: Any) -> Any:
    """Follow `$ref` within one document."""
    while "$ref" in schema:
        found = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        schema = found
    return schema


def types_of(schema: Any) -> set[str]:
    """The JSON types that a schema lets pass (empty: says nothing)."""
    if "anyOf" in schema:
        return set().union(*(types_of(option) for option in schema["anyOf"]))
    named = schema.get("type", [])
    kinds = {named} if isinstance(named, str) else set(named)
    return kinds | {"number", "integer"} if "number" in kinds else kinds


@pytest.mark.parametrize(
    ("wanted", "promised"),
    [
        ({"properties": {"a": {"type": "string"}}}, {"properties": {}}),
        ({"properties": {"a": {}}, "required": ["a"]}, {"properties": {"a": {}}}),
        ({"properties": {"a": {"type": "string"}}}, {"properties": {"a": {"type": ["string", "null"]}}}),
        ({"properties": {"a": {"enum": ["x"]}}}, {"properties": {"a": {"enum": ["x", "y"]}}}),
    ],
    ids=["unknown field", "optional field required", "null not taken", "unknown value"],
)
def test_the_rule_itself_finds_what_breaks_it(wanted: dict[str, Any], promised: dict[str, Any]) -> None:
    whole = {"type": "object", **wanted}, {"type": "object", **promised}
    assert list(beyond(*whole, *whole, "data"))


@pytest.mark.parametrize("service", SERVICES)
def test_openapi_describes_only_routes_under_the_services_prefixes(service: str) -> None:
    path = REPOSITORY / "services" / service / "contract" / "http.openapi.yaml"
    document = yaml.safe_load(path.read_text())
    assert str(document["openapi"]).startswith("3.1")
    prefixes = [prefix for prefix, owner in PREFIXES.items() if owner == service]
    for route in document.get("paths") or {}:
        assert any(route == prefix or route.startswith(prefix + "/") for prefix in prefixes), f"{path.name}: {route}"


@pytest.mark.parametrize("folder", ["broker/spec/vectors/valid", "broker/spec/vectors/invalid", "auth/spec/vectors"])
def test_golden_vectors_exist_and_parse(folder: str) -> None:
    found = sorted(Path(REPOSITORY / folder).rglob("*.json"))
    assert len(found) >= 3, f"{folder} holds {len(found)} vectors"
    for path in found:
        json.loads(path.read_text())
