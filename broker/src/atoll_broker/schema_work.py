"""How much work a schema can make of one event, found before any event comes.

Patterns take linear time; what multiplies is composition. A schema that applies a subschema twice to the same value,
and that one another twice, has looked at the value 2**n times after n such steps, in C code that nothing interrupts:
three kilobytes of a peer's HELLO would hold up everybody for hours. So what a schema may apply to any one value is
counted over its graph of subschemas, level by level of the value, and bounded.

The count is an upper one: alternatives that exclude each other are added up all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from .codec import NESTING_MAX

WORK_MAX: Final = 10_000  # subschemas applied to one value
SUBSCHEMAS_MAX: Final = 4096
_LISTS: Final = ("allOf", "anyOf", "oneOf")
_ONE: Final = ("not", "if", "then", "else")
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_NAMED: Final = ("dependentSchemas", "dependencies")

Schema = dict[str, Any]


class TooMuchWorkError(ValueError):
    """The text says what there is too much of, or what can not be counted."""


@dataclass
class _Node:
    """A subschema: what it applies to the same value, and what to a member or an item of it.

    `one_of` are those of which a member or item gets one at most (each property has a name of its own); `each` it may
    all get.
    """

    same: list[int] = field(default_factory=list)
    one_of: list[int] = field(default_factory=list)
    each: list[int] = field(default_factory=list)


def check(schema: Schema) -> None:
    """Raises TooMuchWorkError."""
    nodes = _Graph(schema).nodes
    order = _inner_first(nodes)
    work = [0] * len(nodes)
    for depth in range(NESTING_MAX + 1):
        below, work = work, [0] * len(nodes)
        for at in order:
            node = nodes[at]
            own = 1 if depth == 0 else max((below[one] for one in node.one_of), default=0)
            own += sum(below[one] for one in node.each) if depth else 0
            work[at] = own + sum(work[one] for one in node.same)
        if max(work) > WORK_MAX:
            raise TooMuchWorkError(f"it may apply more than {WORK_MAX} subschemas to one value")
        if work == below:
            return


def _inner_first(nodes: list[_Node]) -> list[int]:
    """So that what a node applies to the same value comes before it."""
    order: list[int] = []
    state = [0] * len(nodes)  # 1: under way, 2: done
    for start in range(len(nodes)):
        waiting = [(start, False)]
        while waiting:
            at, seen = waiting.pop()
            if seen:
                state[at] = 2
                order.append(at)
            elif state[at] == 1:
                raise TooMuchWorkError("a $ref leads back to itself without a step into the value")
            elif state[at] == 0:
                state[at] = 1
                waiting.append((at, True))
                waiting += [(one, False) for one in nodes[at].same if state[one] != 2]
    return order


class _Graph:
    def __init__(self, root: Schema) -> None:
        self.nodes: list[_Node] = []
        self._root = root
        self._numbers: dict[int, int] = {}
        self._open: list[tuple[int, Schema]] = []
        self._number(root)
        while self._open:
            number, schema = self._open.pop()
            if schema is not root and any(isinstance(schema.get(name), str) for name in ("$id", "id")):
                raise TooMuchWorkError("a subschema has an $id, which is for whole schemas here")
            self._look_at(self.nodes[number], schema)

    def _number(self, schema: Any) -> Iterator[int]:
        """Of a subschema that is an object; those that are true or false cost nothing."""
        if not isinstance(schema, dict):
            return iter(())
        number = self._numbers.get(id(schema))
        if number is None:
            number = self._numbers[id(schema)] = len(self.nodes)
            if number >= SUBSCHEMAS_MAX:
                raise TooMuchWorkError(f"it has more than {SUBSCHEMAS_MAX} subschemas")
            self.nodes.append(_Node())
            self._open.append((number, schema))
        return iter((number,))

    def _look_at(self, node: _Node, schema: Schema) -> None:
        for name in _LISTS:
            for one in _list(schema.get(name)):
                node.same += self._number(one)
        for name in _ONE:
            node.same += self._number(schema.get(name))
        for name in _NAMED:
            for one in _values(schema.get(name)):
                node.same += self._number(one)
        for name in _REFERENCES:
            if isinstance(reference := schema.get(name), str):
                node.same += self._number(self._resolve(reference))
        for name in ("properties", "prefixItems", "items"):
            found = schema.get(name)
            for one in _values(found) if name == "properties" else _list(found) or [found]:
                node.one_of += self._number(one)
        for name in ("additionalProperties", "additionalItems"):
            node.one_of += self._number(schema.get(name))
        for one in _values(schema.get("patternProperties")):
            node.each += self._number(one)
        for name in ("contains", "propertyNames", "unevaluatedProperties", "unevaluatedItems"):
            node.each += self._number(schema.get(name))
        if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
            node.same += list(node.same)  # asks all of them once more what they have looked at

    def _resolve(self, reference: str) -> Any:
        base, _, fragment = reference.partition("#")
        if base and base != self._root.get("$id"):
            raise TooMuchWorkError(f"$ref {reference[:80]!r} leads out of the schema")
        if not fragment:
            return self._root
        if not fragment.startswith("/"):
            return self._anchored(unquote(fragment), reference)
        found: Any = self._root
        for step in unquote(fragment)[1:].split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                raise TooMuchWorkError(f"$ref {reference[:80]!r} leads nowhere")
        return found

    def _anchored(self, name: str, reference: str) -> Schema:
        waiting: list[Any] = [self._root]
        while waiting:
            one = waiting.pop()
            if isinstance(one, dict):
                if name in (one.get("$anchor"), one.get("$dynamicAnchor")):
                    return one
                waiting += one.values()
            elif isinstance(one, list):
                waiting += one
        raise TooMuchWorkError(f"$ref {reference[:80]!r} leads nowhere")


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _values(found: Any) -> list[Any]:
    return list(found.values()) if isinstance(found, dict) else []
