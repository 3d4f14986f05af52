"""What the core asks of a disk, and the records that pass between them.

`commit` is called on a writer thread, one batch at a time, and returns only when the batch is flushed: all of it or
none. `find`, `steps` and `select` may read the whole log, so they are called on a thread of their own. Everything else
is called on the loop's thread. All of them see committed rows alone. A disk that is full is a StorageFullError of
`commit`, which has then written nothing and may be called again; any other failure is a StorageFailedError, after
which the storage is not used again.
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


class Lease(msgspec.Struct, frozen=True):
    """Who had an event in hand when this was written: after a boot no other slot gets it before the lease is over."""

    slot: str
    fence: int


class Gap(msgspec.Struct, frozen=True):
    """Events that a group will never get: seq first to last, and why."""

    first: int
    last: int
    why: str
    at_ms: int


class Step(msgspec.Struct, frozen=True):
    """One line of an event's history: what happened to it in a group. `n` is their order, across boots."""

    n: int
    seq: int
    group: str
    at_ms: int
    what: str
    attempt: int
    slot: str
    fence: int
    text: str = ""


class GroupRecord(msgspec.Struct):
    """Where a group stands. May lag behind what was acked, never run ahead of it."""

    floor: int
    acked: set[int] = msgspec.field(default_factory=set)
    attempts: dict[int, int] = msgspec.field(default_factory=dict)
    dead: list[DeadMark] = []
    waiting: int = 0
    leases: dict[int, Lease] = msgspec.field(default_factory=dict)
    gaps: list[Gap] = []
    detached: bool = False


class LetterPut(msgspec.Struct):
    """A dead letter; or, with `replaying`, an event that was finished and shall come again."""

    letter: DeadLetter
    replaying: bool = False


class LettersReplay(msgspec.Struct):
    """From now on these are waiting again; the rows stay until acked, or a crash would lose them."""

    group: str
    seqs: list[int]


class LetterDrop(msgspec.Struct):
    group: str
    seq: int


class Place(msgspec.Struct, frozen=True):
    """An event of the log without its bytes."""

    seq: int
    topic: str
    subject: str
    event_id: str


class WriteBatch(msgspec.Struct):
    """One group commit. `letters` is applied in order, the rest in any."""

    events: list[StoredEvent] = []
    producers: dict[str, ProducerRecord] = {}
    floors: dict[str, int] = {}
    acked: list[tuple[str, int]] = []
    attempts: dict[tuple[str, int], int] = {}  # 0: forget
    letters: list[LetterPut | LettersReplay | LetterDrop] = []
    leases: dict[tuple[str, int], Lease | None] = {}  # None: it has ended
    gaps: list[tuple[str, Gap]] = []
    detached: dict[str, bool] = {}
    steps: list[Step] = []
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
    def open(self, groups: dict[str, tuple[list[str], Literal["earliest", "latest"]]], at_ms: int) -> Recovered:
        """Starts a boot. `groups`: topics and start of each declared group; a new one gets its floor here, and one
        that retention passed while nobody held its floor gets the gap."""

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

    def dead_letters(self, group: str, subject: str | None, after: int, limit: int) -> list[DeadLetter]:
        """Those not being replayed, of one subject or of all, with seq > after, in order."""

    def find(self, event_id: str) -> StoredEvent | None:
        """The newest event with this id that the log still has."""

    def steps(self, seq: int) -> list[Step]:
        """The failures of an event that are on disk, oldest first."""

    def select(self, topics: list[str], first: int, last: int, subject: str | None) -> list[Place]:
        """Where the events of these topics (of one subject, or of all) lie, in order."""

    def close(self) -> None: ...


def gap_of_retention(floor: int, oldest: int, at_ms: int, *, detached: bool) -> Gap:
    """What a group missed whose floor the log no longer reaches."""
    why = "retention passed it while it was detached" if detached else "retention passed it while it was not declared"
    return Gap(floor + 1, oldest - 1, why, at_ms)
