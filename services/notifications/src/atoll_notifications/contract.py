"""The JSON Schemas in `contract/`, made from `messages`: `python -m atoll_notifications.contract` writes them.

`consumes/` is the part of others' events that this service reads; it publishes none itself. A test compares the files
with what this module makes, so neither changes without the other.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from atoll_notifications import messages

_REF = "#/$defs/"


def documents() -> dict[str, str]:
    """The text of every file, by its path in `contract/`."""
    return {
        f"consumes/{topic}.schema.json": json.dumps(schema(topic, data_type), indent=2) + "\n"
        for topic, data_type in messages.CONSUMES.items()
    }


def schema(topic: str, data_type: type[msgspec.Struct]) -> dict[str, Any]:
    """JSON Schema 2020-12 of an event's `data`. Fields that it does not know are allowed: owners may add."""
    (root,), definitions = msgspec.json.schema_components([data_type], ref_template=_REF + "{name}")
    inlined = _inline(root, definitions)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **inlined, "title": topic}


def _inline(node: Any, definitions: dict[str, Any]) -> Any:
    """Puts each definition where it is referred to: a reader, and a comparison, need not follow references."""
    if isinstance(node, list):
        return [_inline(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inline(definitions[node["$ref"].removeprefix(_REF)], definitions)
    return {key: _inline(value, definitions) for key, value in node.items()}


def write(folder: Path) -> None:
    for path, text in documents().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path("contract"))
