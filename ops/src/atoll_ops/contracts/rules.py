"""The two rules of contracts, over schemas alone.

    reads      consumer ⊆ publisher: every event that the publisher's schema lets pass, the consumer's copy takes; and
               each field that the copy names is one that the publisher has (else it waits for ever for a misspelt name)
    additions  within a major, a publisher's next schema is the one before with more optional fields, and nothing else

Why additions are so strict: both versions run side by side for a while, and the log holds events of the older for as
long as it keeps them. So consumers meet both kinds whatever order things are released in.

    removed, or optional now    consumers that read the field fail on new events
    a wider type, value, bound  the same: they were promised less
    a narrower one              consumers that come to rely on it fail on the events that are in the log already
    a new field, required       the same: those events do not have it

From the two together follows what nobody has to check: a consumer that fits its publisher fits every version of it
within the major. Where a schema has a keyword that is not understood, the rules demand that both say it alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from atoll_ops.contracts.shapes import LOWER, SAME, UPPER, Option, Schema, SchemaError, options, takes, type_of

ROOT_FIELD = "data"


class Finding(NamedTuple):
    """One thing that breaks a rule. `field` is a path from the event, as `data.lines[].sku`."""

    field: str
    rule: str
    text: str


def reads(wanted: Schema, promised: Schema) -> list[Finding]:
    """Why a consumer's copy does not fit its publisher's schema; empty where it does."""
    return _guarded(lambda: list(_Reads(wanted, promised).compare(wanted, promised, ROOT_FIELD)))


def additions(old: Schema, new: Schema) -> list[Finding]:
    """What a publisher's next schema does beside adding optional fields; empty where it does not."""
    return _guarded(lambda: list(_Additions(old, new).compare(old, new, ROOT_FIELD)))


def _guarded(compare: Any) -> list[Finding]:
    try:
        found: list[Finding] = compare()
    except SchemaError as error:
        return [Finding(ROOT_FIELD, "schema", str(error))]
    return found


class _Reads:
    """A walk down two schemas side by side. A pair that is met again inside itself is not walked twice."""

    def __init__(self, wanted_root: Schema, promised_root: Schema) -> None:
        self._roots = wanted_root, promised_root
        self._inside: set[tuple[int, int]] = set()

    def compare(self, wanted: Schema, promised: Schema, field: str) -> Iterator[Finding]:
        pair = id(wanted), id(promised)
        if pair in self._inside:
            return
        self._inside.add(pair)
        takers = options(wanted, self._roots[0])
        for given in options(promised, self._roots[1]):
            yield from self._option(takers, given, field)
        self._inside.discard(pair)

    def _option(self, takers: list[Option], given: Option, field: str) -> Iterator[Finding]:
        """One alternative of the publisher's: some alternative of the consumer's must take it."""
        able = [taker for taker in takers if takes(taker.type, given.type)]
        if not able:
            known = ", ".join(str(taker.type) for taker in takers) or "nothing"
            yield Finding(field, "type", f"expected {known}, the publisher may send {given.type or 'anything'}")
            return
        tries = [list(self._taken(taker, given, field)) for taker in able]
        yield from min(tries, key=len)

    def _taken(self, taker: Option, given: Option, field: str) -> Iterator[Finding]:
        if taker.values is not None:
            yield from _values(taker.values, given, field)
        for name in (*LOWER, *UPPER):
            if name in taker.keywords and not _bounded(name, taker.keywords[name], given):
                yield _narrower(field, "bound", name, taker.keywords[name], given.keywords.get(name))
        for name in SAME:
            if name in taker.keywords and taker.keywords[name] != given.keywords.get(name):
                yield _narrower(field, "bound", name, taker.keywords[name], given.keywords.get(name))
        for name, value in taker.unknown.items():
            if given.unknown.get(name) != value:
                text = f"{name} is not understood here: expected the same in both, or none in the consumer's"
                yield Finding(field, "keyword", text)
        yield from self._fields(taker, given, field)
        if "items" in taker.keywords:
            yield from self.compare(taker.keywords["items"], given.keywords.get("items", True), f"{field}[]")

    def _fields(self, taker: Option, given: Option, field: str) -> Iterator[Finding]:
        for name, inner in taker.fields.items():
            if name not in given.fields:
                yield Finding(f"{field}.{name}", "field", "expected a field of the publisher's, it has none")
                continue
            if name in taker.required - given.required:
                yield Finding(f"{field}.{name}", "required", "expected always, the publisher may leave it out")
            yield from self.compare(inner, given.fields[name], f"{field}.{name}")
        for name in sorted(taker.required - taker.fields.keys() - given.required):
            yield Finding(f"{field}.{name}", "required", "expected always, the publisher may leave it out")
        others = taker.keywords.get("additionalProperties", True)
        if others is not True and given.keywords.get("additionalProperties") != others:
            text = "additionalProperties: expected none in a consumer's copy: the publisher may add fields"
            yield Finding(field, "closed", text)


def _values(known: tuple[Any, ...], given: Option, field: str) -> Iterator[Finding]:
    if given.values is None:
        yield Finding(field, "value", f"expected one of {_told(known)}, the publisher names no values")
        return
    extra = [value for value in given.values if not _among(value, known)]
    if extra:
        yield Finding(field, "value", f"expected one of {_told(known)}, the publisher may send {_told(extra)} too")


def _bounded(name: str, bound: Any, given: Option) -> bool:
    """Whether all that is given keeps a bound of the taker's."""
    lower = name in LOWER
    if given.values is not None:
        return all(_keeps(name, bound, value) for value in given.values)
    strict = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}
    loose = {exclusive: plain for plain, exclusive in strict.items()}
    promised = given.keywords.get(name, given.keywords.get(strict.get(name, "")))
    if promised is not None and (promised >= bound if lower else promised <= bound):
        return True
    plain = given.keywords.get(loose.get(name, ""))  # an inclusive bound that lies strictly inside an exclusive one
    return plain is not None and bool(plain > bound if lower else plain < bound)


def _keeps(name: str, bound: Any, value: Any) -> bool:
    measured = len(value) if isinstance(value, str | list | dict) else value
    if name.startswith("exclusive"):
        return bool(measured > bound if name in LOWER else measured < bound)
    return bool(measured >= bound if name in LOWER else measured <= bound)


def _narrower(field: str, rule: str, name: str, expected: Any, found: Any) -> Finding:
    said = f"says {found!r}" if found is not None else "does not say so"
    return Finding(field, rule, f"expected {name} {expected!r}, the publisher {said}")


class _Additions:
    """The same walk for a publisher's schema and its successor: equal but for new optional fields."""

    def __init__(self, old_root: Schema, new_root: Schema) -> None:
        self._roots = old_root, new_root
        self._inside: set[tuple[int, int]] = set()

    def compare(self, old: Schema, new: Schema, field: str) -> Iterator[Finding]:
        pair = id(old), id(new)
        if pair in self._inside:
            return
        self._inside.add(pair)
        before, after = options(old, self._roots[0]), options(new, self._roots[1])
        kinds_before, kinds_after = _kinds(before), _kinds(after)
        if kinds_before != kinds_after:
            yield Finding(field, "type", f"expected {_told(kinds_before)} as before, is {_told(kinds_after)} now")
        else:
            yield from self._paired(before, after, field)
        self._inside.discard(pair)

    def _paired(self, before: list[Option], after: list[Option], field: str) -> Iterator[Finding]:
        """Of one type there may be several: each is compared with whichever of the other side is nearest to it."""
        left = list(after)
        for one in before:
            near = [(list(self._option(one, two, field)), two) for two in left if two.type == one.type]
            findings, chosen = min(near, key=lambda pair: len(pair[0]))
            left.remove(chosen)
            yield from findings

    def _option(self, before: Option, after: Option, field: str) -> Iterator[Finding]:
        if not _same_values(before.values, after.values):
            yield _changed(field, "value", "values", before.values, after.values)
        for name in (*LOWER, *UPPER, *SAME):
            if before.keywords.get(name) != after.keywords.get(name):
                yield _changed(field, "bound", name, before.keywords.get(name), after.keywords.get(name))
        if before.unknown != after.unknown:
            yield _changed(field, "keyword", "what is said of it", dict(before.unknown), dict(after.unknown))
        yield from self._fields(before, after, field)
        others = [one.keywords.get("additionalProperties", True) for one in (before, after)]
        if others[0] != others[1]:
            yield _changed(field, "closed", "additionalProperties", *others)
        if "items" in before.keywords or "items" in after.keywords:
            items = [one.keywords.get("items", True) for one in (before, after)]
            yield from self.compare(items[0], items[1], f"{field}[]")

    def _fields(self, before: Option, after: Option, field: str) -> Iterator[Finding]:
        for name, inner in before.fields.items():
            if name not in after.fields:
                yield Finding(f"{field}.{name}", "removed", "expected the field to stay, it is gone")
                continue
            yield from self.compare(inner, after.fields[name], f"{field}.{name}")
        for name in sorted(before.required - after.required):
            if name in after.fields or name not in before.fields:
                yield Finding(f"{field}.{name}", "required", "expected always there as before, may be left out now")
        for name in sorted(after.required - before.required):
            new = name not in before.fields
            text = "a new field may be there or not, is required: events in the log do not have it"
            stays = "expected that it may be left out as before, is required now"
            yield Finding(f"{field}.{name}", "required", f"expected that {text}" if new else stays)


def _kinds(found: list[Option]) -> list[str]:
    return sorted(option.type or "anything" for option in found)


def _same_values(before: tuple[Any, ...] | None, after: tuple[Any, ...] | None) -> bool:
    if before is None or after is None:
        return before is after
    return all(_among(value, after) for value in before) and all(_among(value, before) for value in after)


def _among(value: Any, values: tuple[Any, ...]) -> bool:
    """Python takes True for 1; JSON does not."""
    return any(value == one and type_of(value) == type_of(one) for one in values)


def _changed(field: str, rule: str, name: str, before: Any, after: Any) -> Finding:
    was, now = ("none" if value is None else _told(value) for value in (before, after))
    return Finding(field, rule, f"expected {name} {was} as before, is {now} now")


def _told(value: Any) -> str:
    """For a line: bounded."""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= 120 else text[:117] + "…"
