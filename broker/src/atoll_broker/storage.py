"""What the core asks of a disk, and the records that pass between them.

`commit` is called on a writer thread, one batch at a time, and returns only when the batch is flushed: all of it or
none. Everything else is called on the loop's thread and sees committed rows alone. Any failure is a
StorageFailedError, after which the storage is not used again.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from .commands import Refusal


class StoredEvent(msgspec.Struct, gc=False):
    """One row of the log. `body` is the event as its publisher sent it."""

    seq: int
    topic: str
    subject: str
    event_id: str
    producer: str
    pseq: int
    stored_ms: int
    body: bytes


class ProducerRecord(msgspec.Struct):
    """Committed with the events it counts: a mark without its events would lose them, the reverse doubles them."""

    mark: int
    last_id: str | None
    refused: list[Refusal] = []


class DeadLetter(msgspec.Struct):
    group: str
    seq: int
    topic: str
    subject: str
    event_id: str
    cause: str
    behind: int | None
    error: str
    fingerprint: str
    attempts: int
    version: str
    traceparent: str | None
    at_ms: int


class DeadMark(msgspec.Struct):
    """What the core remembers of a dead letter."""

    seq: int
    topic: str
    subject: str
    replaying: bool


class GroupRecord(msgspec.Struct):
    """Where a group stands. May lag behind what was acked, never run ahead of it."""

    floor: int
    acked: set[int] = msgspec.field(default_factory=set)
    attempts: dict[int, int] = msgspec.field(default_factory=dict)
    dead: list[DeadMark] = []
    waiting: int = 0


class LetterPut(msgspec.Struct):
    letter: DeadLetter


class LettersReplay(msgspec.Struct):
    """From now on these are waiting again; the rows stay until acked, or a crash would lose them."""

    group: str
    subject: str


class LetterDrop(msgspec.Struct):
    group: str
    seq: int


class WriteBatch(msgspec.Struct):
    """One group commit. `letters` is applied in order, the rest in any."""

    events: list[StoredEvent] = []
    producers: dict[str, ProducerRecord] = {}
    floors: dict[str, int] = {}
    acked: list[tuple[str, int]] = []
    attempts: dict[tuple[str, int], int] = {}  # 0: forget
    letters: list[LetterPut | LettersReplay | LetterDrop] = []
    kept: dict[str, bytes] = {}
    trim_below: int | None = None


class Recovered(msgspec.Struct):
    """What was on disk at boot. `boot` is already raised and flushed: no fence of an earlier boot comes again."""

    boot: int
    log_id: str
    oldest: int
    next_seq: int
    log_bytes: int
    topics: dict[str, int]
    producers: dict[str, ProducerRecord]
    groups: dict[str, GroupRecord]
    kept: dict[str, bytes]


class Trimmed(msgspec.Struct):
    oldest: int
    log_bytes: int
    topics: dict[str, int]


class Storage(Protocol):
    def open(self, groups: dict[str, tuple[list[str], Literal["earliest", "latest"]]]) -> Recovered:
        """Starts a boot. `groups`: topics and start of each declared group; a new one gets its floor here."""

    def commit(self, batch: WriteBatch) -> Trimmed | None:
        """Flushes; on the writer thread. The log's new extent if the batch trimmed it."""

    @property
    def checkpoint_due(self) -> bool:
        """Should the shell call `checkpoint`, on the writer thread, once the present commit is reported?"""

    def checkpoint(self) -> None:
        """House-keeping that no ack should wait for."""

    def read(self, after: int, events_max: int, bytes_max: int) -> list[StoredEvent]:
        """Consecutive events with seq > after, at least one if there is any. A gap is a StorageFailedError."""

    def read_one(self, seq: int) -> StoredEvent: ...

    def dead_letters(self, group: str, after: int, limit: int) -> list[DeadLetter]:
        """Those not being replayed, with seq > after, in order."""

    def close(self) -> None: ...
