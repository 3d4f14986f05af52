"""The whole system as one AsyncAPI 3.0 document: what is said on the bus, by whom, and who listens.

    channels     topics                 messages     CloudEvents, each with its publisher's schema as `data`
    operations   PART.send.TOPIC for what a part's contract publishes, PART.receive.TOPIC for what its groups take

Such a document usually speaks for one application. This one speaks for all: an operation's tag says whose it is. The
schemas are embedded as AsyncAPI's own (JSON Schema draft 7 and more), which knows every keyword that contracts use.
"""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from atoll_ops.contracts.files import Contract, Contracts, in_folder
from atoll_ops.errors import MeshError, OperationError

VERSION = "3.0.0"
_WIRE = "broker/spec/wire-1.md"
_ENVELOPE: dict[str, Any] = {
    "description": "The envelope of every event: CloudEvents 1.0 in JSON.",
    "type": "object",
    "required": ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1, "maxLength": 128, "description": "Unique among those of its source."},
        "source": {"type": "string", "minLength": 1, "maxLength": 256},
        "type": {"type": "string", "description": "The topic."},
        "subject": {"type": "string", "minLength": 1, "maxLength": 256, "description": "The ordering key."},
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"const": "application/json"},
        "traceparent": {"type": "string", "description": "W3C Trace Context of where the event was made."},
        "tracestate": {"type": "string"},
        "data": {},
    },
}  # fmt: skip


def write(root: Path, page: Path, output: Path | None) -> int:
    """Print the document, or write it. Raises OperationError for contracts that are broken, MeshError for the page."""
    contracts = in_folder(root)
    if contracts.broken:
        first = contracts.broken[0]
        raise OperationError(f"{first.file}: {first.text}; see `./atoll contracts check`")
    text = json.dumps(document(contracts, read_page(page)), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        print(text, end="")
    else:
        output.write_text(text, encoding="utf-8")
    return 0


def read_page(page: Path) -> dict[str, Any]:
    """The system page's tables; the broker is the one who is strict about them. Raises MeshError."""
    try:
        return tomllib.loads(page.read_text(encoding="utf-8"))
    except OSError as error:
        raise MeshError(f"{page}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MeshError(f"{page}: not TOML: {error}") from error


def document(contracts: Contracts, tables: Mapping[str, Any]) -> dict[str, Any]:
    """The document; pure. `tables` is mesh.toml as read."""
    publishers = contracts.publishers()
    topics = sorted(publishers)
    return {
        "asyncapi": VERSION,
        "info": _info(str(tables.get("system", {}).get("name", "atoll"))),
        "defaultContentType": "application/cloudevents+json",
        "servers": {"broker": _server()},
        "channels": {topic: _channel(topic, publishers[topic]) for topic in topics},
        "operations": dict([*_sends(publishers), *_receives(tables, contracts)]),
        "components": {
            "messages": {topic: _message(topic, publishers[topic]) for topic in topics},
            "schemas": {"CloudEvent": _ENVELOPE} | {topic: embedded(publishers[topic]) for topic in topics},
            "securitySchemes": {
                "curve": {
                    "type": "asymmetricEncryption",
                    "description": "CURVE: a client's public key is its identity, and mesh.toml says what it may.",
                }
            },
        },
    }


def _info(name: str) -> dict[str, Any]:
    return {
        "title": f"{name}: events",
        "version": "1",
        "description": f"Every event on the bus, as contract/ and mesh.toml have it. The wire: {_WIRE}.",
    }


def _server() -> dict[str, Any]:
    """Where it is by default; `./atoll up --ports` moves it."""
    return {
        "host": "127.0.0.1:8086",
        "protocol": "zmq",
        "protocolVersion": "3.1",
        "description": f"The broker: one ZeroMQ ROUTER, which speaks Atoll wire 1 ({_WIRE}).",
        "security": [{"$ref": "#/components/securitySchemes/curve"}],
    }


def _channel(topic: str, publisher: Contract) -> dict[str, Any]:
    return {
        "address": topic,
        "title": topic,
        "description": str(publisher.schema.get("description", "")),
        "servers": [{"$ref": "#/servers/broker"}],
        "messages": {"event": {"$ref": f"#/components/messages/{topic}"}},
        "tags": [{"name": publisher.part}],
    }


def _message(topic: str, publisher: Contract) -> dict[str, Any]:
    of_topic = {
        "type": "object",
        "properties": {"type": {"const": topic}, "data": {"$ref": f"#/components/schemas/{topic}"}},
    }
    return {
        "name": topic,
        "title": topic,
        "summary": str(publisher.schema.get("description", "")),
        "contentType": "application/cloudevents+json",
        "correlationId": {"location": "$message.payload#/subject", "description": "The ordering key."},
        "payload": {"allOf": [{"$ref": "#/components/schemas/CloudEvent"}, of_topic]},
    }


def _sends(publishers: Mapping[str, Contract]) -> Iterator[tuple[str, dict[str, Any]]]:
    for topic, publisher in sorted(publishers.items(), key=lambda item: (item[1].part, item[0])):
        yield f"{publisher.part}.send.{topic}", _operation("send", publisher.part, topic)


def _receives(tables: Mapping[str, Any], contracts: Contracts) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each group's topics, with the policy by which it gets them and what it reads of them."""
    copies = {(one.part, one.topic): one for one in contracts.consumes}
    for name, table in sorted(tables.get("group", {}).items()):
        policy = {**tables.get("group_defaults", {}), **table}
        part, topics = str(policy.pop("part", name)), policy.pop("topics", [])
        for topic in sorted(topics):
            operation = _operation("receive", part, topic)
            operation["x-atoll-group"] = {"name": name, **policy}
            if (part, topic) in copies:
                here = f"#/operations/{name}.receive.{topic}/x-atoll-reads"
                operation["x-atoll-reads"] = embedded(copies[part, topic], here)
            yield f"{name}.receive.{topic}", operation


def _operation(action: str, part: str, topic: str) -> dict[str, Any]:
    channel = f"#/channels/{topic}"
    return {
        "action": action,
        "title": f"{part} {action}s {topic}",
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/event"}],
        "tags": [{"name": part}],
    }


def embedded(contract: Contract, at: str | None = None) -> dict[str, Any]:
    """A schema as it stands in the document: without what names its dialect, and its references led to where it is."""
    at = at or f"#/components/schemas/{contract.topic}"
    schema: dict[str, Any] = copy.deepcopy(contract.schema)
    for name in ("$schema", "$id"):
        schema.pop(name, None)
    if "$defs" in schema:  # its name in draft 7
        schema["definitions"] = schema.pop("$defs")
    moved: dict[str, Any] = _moved(schema, at)
    return moved


def _moved(node: Any, at: str) -> Any:
    if isinstance(node, list):
        return [_moved(one, at) for one in node]
    if not isinstance(node, dict):
        return node
    found = {name: _moved(inner, at) for name, inner in node.items()}
    reference = found.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        inside = reference.removeprefix("#").replace("/$defs/", "/definitions/", 1)
        found["$ref"] = at + inside
    return found
