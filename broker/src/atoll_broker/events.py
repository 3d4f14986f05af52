"""One event's way in: size, CloudEvents envelope, contract, JSON Schema of its data.

`data` stays unparsed (`msgspec.Raw`) until the schema needs it, and what is stored are the bytes that came. A schema
is compiled once per content, without remote references (the broker fetches nothing on a peer's word), with patterns of
linear time and a bound on its work (a peer's schema must not stall the others).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import jsonschema_rs
import msgspec
from msgspec import Meta, Raw

from . import schema_work
from .codec import NESTING_MAX, decode_raw, field_of, nests_too_deeply
from .commands import Topic
from .errors import EventRefusedError, WireError

SCHEMAS_MAX: Final = 1024
TEXT_MAX: Final = 400


class Envelope(msgspec.Struct, gc=False):
    """CloudEvents 1.0, JSON format. Extension attributes are allowed and not looked at."""

    specversion: Literal["1.0"]
    id: Annotated[str, Meta(min_length=1, max_length=128)]
    source: Annotated[str, Meta(min_length=1, max_length=256)]
    type: Topic
    subject: Annotated[str, Meta(min_length=1, max_length=256)]
    time: Annotated[datetime, Meta(tz=True)]
    datacontenttype: Literal["application/json"]
    data: Raw
    traceparent: Annotated[str, Meta(pattern=r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")] | None = None
    tracestate: Annotated[str, Meta(max_length=512)] | None = None


Contract = dict[str, jsonschema_rs.Validator]
"""What a session announced: the compiled schema of each topic that it publishes."""


class Head(msgspec.Struct):
    """What stories and dead letters want to know of an event that is stored already."""

    time: str | None = None
    source: str | None = None
    traceparent: str | None = None


_envelopes: Final = msgspec.json.Decoder(Envelope)
_heads: Final = msgspec.json.Decoder(Head)


class Schemas:
    """Compiled schemas by the hash of their bytes; the least used go first."""

    def __init__(self) -> None:
        self._compiled: OrderedDict[bytes, jsonschema_rs.Validator] = OrderedDict()

    def compile(self, topic: str, schema: Raw) -> jsonschema_rs.Validator:
        """Raises WireError CONTRACT, naming the topic."""
        key = hashlib.sha256(schema).digest()
        validator = self._compiled.get(key)
        if validator is None:
            validator = self._compiled[key] = _compile(topic, schema)
            if len(self._compiled) > SCHEMAS_MAX:
                self._compiled.popitem(last=False)
        else:
            self._compiled.move_to_end(key)
        return validator


def _compile(topic: str, schema: Raw) -> jsonschema_rs.Validator:
    field = f"contracts.publishes.{topic}"
    decoded = decode_raw(schema, "CONTRACT", field)
    if not isinstance(decoded, dict):
        raise WireError("CONTRACT", "a schema is a JSON object", field)
    try:
        schema_work.check(decoded)
    except schema_work.TooMuchWorkError as error:
        raise WireError("CONTRACT", f"the schema's work can not be bounded: {error}", field) from None
    try:
        return jsonschema_rs.validator_for(decoded, offline=True, pattern_options=jsonschema_rs.RegexOptions())
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise WireError("CONTRACT", f"the schema does not compile: {_short(str(error))}", field) from None


def check(event: Raw, contract: Contract, event_bytes_max: int, publisher: str | None) -> Envelope:
    """The envelope of an event that may be stored. Raises EventRefusedError, final for this event.

    Its source is the publisher's own (None: an operator speaks for any). Inboxes know an event by source and id, so who
    could name another's source could have that one's next event taken for a duplicate.
    """
    size = len(memoryview(event))
    if size > event_bytes_max:
        raise EventRefusedError("TOO_LARGE", "", f"an event has at most {event_bytes_max} bytes, got {size}")
    try:
        envelope = _envelopes.decode(event)
    except (msgspec.DecodeError, RecursionError) as error:
        field = field_of(error) if isinstance(error, msgspec.ValidationError) else None
        raise EventRefusedError("SCHEMA", field or "", _short(str(error))) from None
    if nests_too_deeply(bytes(event)):
        raise EventRefusedError("SCHEMA", "", f"an event nests at most {NESTING_MAX} levels deep")
    if publisher is not None and not _lies_under(envelope.source, publisher):
        raise EventRefusedError("SCHEMA", "source", f"expected /{publisher} or below, got {envelope.source[:64]!r}")
    validator = contract.get(envelope.type)
    if validator is None:
        raise EventRefusedError("ACL", "type", f"{envelope.type} is not announced by this session")
    _check_data(_data_of(event, envelope), validator)
    return envelope


def _lies_under(source: str, publisher: str) -> bool:
    return source == f"/{publisher}" or source.startswith(f"/{publisher}/")


def _data_of(event: Raw, envelope: Envelope) -> object:
    """Decodes all of it, extension attributes too: what is stored, everybody must be able to read."""
    try:
        return msgspec.json.decode(event)["data"]
    except (msgspec.DecodeError, RecursionError) as error:
        field = "data" if not _decodes(envelope.data) else ""
        raise EventRefusedError("SCHEMA", field, _short(str(error))) from None


def _decodes(value: Raw) -> bool:
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _check_data(data: object, validator: jsonschema_rs.Validator) -> None:
    if not validator.is_valid(data):
        first = next(iter(validator.iter_errors(data)))
        raise EventRefusedError("SCHEMA", _data_field(first), _short(first.message))


def _data_field(error: jsonschema_rs.ValidationError) -> str:
    """`data.lines[0].quantity`; for a property that is missing, the path that it should have had."""
    path: list[Any] = list(error.instance_path)
    if error.kind.name == "required":
        path.append(error.kind.as_dict()["property"])
    return "data" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[:TEXT_MAX]


def head_of(body: bytes) -> Head:
    """Of an event in the log."""
    return _heads.decode(body)


def _short(text: str) -> str:
    """A schema error quotes the value, which may be long, or a secret's neighbour: the first line, cut."""
    return text.split("\n", 1)[0][:TEXT_MAX]
