"""contract/http.openapi.yaml describes the routes that there are, and its own examples fit its schemas."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from support import PROJECT, Gateway, options

from atoll_sales.app import make_app

HEALTH = {"/live", "/ready", "/metrics"}
DOCUMENT: dict[str, Any] = yaml.safe_load((PROJECT / "contract/http.openapi.yaml").read_text(encoding="utf-8"))
OPERATIONS = {(method.upper(), path): each for path, item in DOCUMENT["paths"].items() for method, each in item.items()}


def test_every_route_is_described_and_no_other(tmp_path: Path) -> None:
    router = make_app(options(tmp_path, Gateway())).router
    routes = {(route.method, route.resource.canonical) for route in router.routes() if route.resource}
    assert {route for route in routes if route[0] != "HEAD" and route[1] not in HEALTH} == set(OPERATIONS)


@pytest.mark.parametrize("route", OPERATIONS, ids=" ".join)
def test_every_operation_names_its_scope_and_its_refusals(route: tuple[str, str]) -> None:
    operation = OPERATIONS[route]
    [[scope]] = [names for need in operation["security"] for names in need.values()]
    assert scope in DOCUMENT["components"]["securitySchemes"]["token"]["flows"]["clientCredentials"]["scopes"]
    assert {"401", "403"} <= set(operation["responses"])


def contents(node: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every media type object with an example, and where it stands."""
    if isinstance(node, dict):
        if "schema" in node and "example" in node:
            yield path, node
        for key, value in node.items():
            yield from contents(value, f"{path}/{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from contents(value, f"{path}/{index}")


EXAMPLES = dict(contents(DOCUMENT))


@pytest.mark.parametrize("path", EXAMPLES)
def test_every_example_fits_its_schema(path: str) -> None:
    content = EXAMPLES[path]
    schema = {**content["schema"], "components": DOCUMENT["components"]}
    jsonschema_rs.validator_for(schema).validate(content["example"])
