"""Contracts of the whole shop: consumer ⊆ publisher by `./atoll contracts check`, one owner a topic, valid documents.

The rules themselves, each with what breaks it, are tested in ops/tests; here the command is held to the real files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

import npm
from fleet import LAUNCHER, REPOSITORY
from left_out import leave_out
from topology import GROUPS, PREFIXES, SERVICES, TOPICS


def schemas(service: str, kind: str) -> dict[str, dict[str, Any]]:
    """Topic -> schema of a service's `publishes` or `consumes`."""
    folder = REPOSITORY / "services" / service / "contract" / kind
    suffix = ".schema.json"
    return {path.name.removesuffix(suffix): json.loads(path.read_text()) for path in sorted(folder.glob(f"*{suffix}"))}


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


def check(root: Path, *words: str) -> tuple[int, str]:
    """`./atoll contracts check`, of the repository in `root`; its exit code, and all that it said."""
    python = REPOSITORY / ".atoll" / "env" / "ops" / "bin" / "python"
    done = subprocess.run(
        [str(python), "-P", "-m", "atoll_ops", "contracts", "check", *words], text=True, check=False, timeout=60,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"ATOLL_ROOT": str(root)},
    )  # fmt: skip
    return done.returncode, done.stdout


def test_a_consumer_reads_nothing_that_its_publisher_does_not_promise() -> None:
    code, said = check(REPOSITORY, "--json")
    report = json.loads(said)
    assert code == 0, report["breaks"]
    consumed = sum(len(topics) for topics in GROUPS.values())
    assert report["counts"] == {"parts": len(SERVICES), "publishes": len(TOPICS), "consumes": consumed}


def _less(schema: dict[str, Any]) -> None:
    """A required field may be left out from now on."""
    schema["required"].remove("total")


def _gone(schema: dict[str, Any]) -> None:
    """A field is not sent any more."""
    schema["required"].remove("total")
    del schema["properties"]["total"]


def _nothing_rather(schema: dict[str, Any]) -> None:
    """A field may be null from now on."""
    schema["properties"]["total"] = {"anyOf": [schema["properties"]["total"], {"type": "null"}]}


@pytest.mark.parametrize(("plant", "rule"), [(_less, "required"), (_gone, "field"), (_nothing_rather, "type")])
def test_the_check_finds_what_is_planted_in_a_copy_of_the_shop(
    tmp_path: Path, plant: Callable[[dict[str, Any]], None], rule: str
) -> None:
    for service in SERVICES:
        shutil.copytree(REPOSITORY / "services" / service / "contract", tmp_path / "services" / service / "contract")
    assert check(tmp_path)[0] == 0
    path = tmp_path / "services/orders/contract/publishes/orders.order.placed.v1.schema.json"
    schema = json.loads(path.read_text())
    plant(schema)
    path.write_text(json.dumps(schema))
    code, said = check(tmp_path)
    assert code == 1
    readers = [line for line in said.splitlines() if line.endswith(f"[{rule}]")]
    assert [line.partition(": ")[0] for line in readers] == [
        "services/payments/contract/consumes/orders.order.placed.v1.schema.json"
    ]


def test_the_system_is_a_valid_asyncapi_document_with_every_topic_and_everybody_who_speaks_or_listens() -> None:
    made = subprocess.run([str(LAUNCHER), "asyncapi"], check=True, capture_output=True, timeout=180)
    document = json.loads(made.stdout)
    validator = jsonschema_rs.validator_for(asyncapi_schema())
    assert [f"{list(error.instance_path)}: {error.message}" for error in validator.iter_errors(document)] == []
    assert set(document["channels"]) == set(TOPICS)
    sends = {f"{owner}.send.{topic}" for topic, owner in TOPICS.items()}
    receives = {f"{group}.receive.{topic}" for group, topics in GROUPS.items() for topic in topics}
    assert set(document["operations"]) == sends | receives
    document["operations"][min(sends)]["action"] = "shout"
    assert not validator.is_valid(document), "the schema finds nothing"


def asyncapi_schema() -> dict[str, Any]:
    """AsyncAPI's own JSON Schema of its documents, version 3.0.0."""
    try:
        modules = npm.installed("asyncapi", Path(__file__).resolve().parent)
    except npm.AbsentError as absent:
        leave_out(str(absent))
    path = modules / "@asyncapi" / "specs" / "schemas" / "3.0.0-without-$id.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


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
