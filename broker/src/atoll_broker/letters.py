"""The dead letters of one group: which there are, which keys they park, and which of them may be released.

With `park` the later events of a key rest on its first dead letter, so letters of a key are released from the first on
and in order: to charge an order whose cancellation lies parked behind is what parking is there to prevent.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from .entries import Entry
from .events import head_of
from .journal import Journal
from .storage import DeadLetter, LetterPut, LettersReplay, Place, StoredEvent

ERROR_TEXT_MAX: Final = 2000

Named = tuple[int, str, str]
"""seq, topic, subject."""


class Choice(msgspec.Struct):
    """Which dead letters an operator means: all of a key, one, or those from `first` to `last`."""

    subject: str | None = None
    first: int = 0
    last: int = 1 << 62

    def takes(self, seq: int, subject: str) -> bool:
        return self.first <= seq <= self.last and self.subject in (None, subject)


class Letters:
    def __init__(self, group: str, journal: Journal) -> None:
        self.count = 0
        self._group = group
        self._journal = journal
        self._keys: dict[str, list[tuple[int, str]]] = {}  # subject: (seq, topic) in log order

    def __contains__(self, subject: str) -> bool:
        return subject in self._keys

    def __iter__(self) -> Iterator[Named]:
        return ((seq, topic, subject) for subject, letters in self._keys.items() for seq, topic in letters)

    @property
    def keys(self) -> int:
        return len(self._keys)

    @property
    def oldest(self) -> int | None:
        return min((letters[0][0] for letters in self._keys.values()), default=None)

    def first_of(self, subject: str) -> int:
        return self._keys[subject][0][0]

    def remember(self, seq: int, topic: str, subject: str) -> None:
        """One that is on disk already."""
        bisect.insort(self._keys.setdefault(subject, []), (seq, topic))
        self.count += 1

    def write(self, entry: Entry, event: StoredEvent, cause: str, error: str, behind: int | None, at_ms: int) -> None:
        error = error[:ERROR_TEXT_MAX]
        letter = _letter_of(self._group, entry, event, cause, error, at_ms)
        letter.behind = behind
        letter.attempts = 0 if behind is not None else entry.attempt
        self._journal.letter(LetterPut(letter))
        self.remember(entry.seq, entry.topic, entry.subject)

    def choose(self, choice: Choice, *, park: bool) -> tuple[list[Named], int]:
        """The letters to release, in log order, and how many of the chosen must stay: with `park`, those behind one
        of their key that is not chosen."""
        chosen: list[Named] = []
        held_back = 0
        for subject in [choice.subject] if choice.subject is not None else list(self._keys):
            letters = self._keys.get(subject, [])
            taken = [choice.takes(seq, subject) for seq, _ in letters]
            free = taken.index(False) if park and False in taken else len(letters)
            chosen += [(seq, topic, subject) for (seq, topic), take in zip(letters[:free], taken, strict=False) if take]
            held_back += sum(taken[free:])
        return sorted(chosen), held_back

    def take(self, letters: Iterable[Named]) -> None:
        """They are dead no more, and replaying from the next commit on."""
        seqs = []
        for seq, topic, subject in letters:
            self._keys[subject].remove((seq, topic))
            if not self._keys[subject]:
                del self._keys[subject]
            seqs.append(seq)
        self.count -= len(seqs)
        if seqs:
            self._journal.letter(LettersReplay(self._group, seqs))

    def forget_below(self, oldest: int) -> None:
        """Those whose events the log has no longer; only a detached group comes to that."""
        gone = [named for named in self if named[0] < oldest]
        for seq, topic, subject in gone:
            self._keys[subject].remove((seq, topic))
            if not self._keys[subject]:
                del self._keys[subject]
        self.count -= len(gone)


def replay_of(group: str, place: Place, by: str, at_ms: int) -> LetterPut:
    """The row that says that a finished event shall come again, until it is finished again."""
    text = f"replay by {by}"
    letter = DeadLetter(
        group, place.seq, place.topic, place.subject, place.event_id, "REPLAY", None, text, "", 0, "", None, at_ms
    )
    return LetterPut(letter, replaying=True)


def _letter_of(group: str, entry: Entry, event: StoredEvent, cause: str, error: str, at_ms: int) -> DeadLetter:
    """`fingerprint` is the same for letters of one group and topic with the same cause and error."""
    return DeadLetter(
        group=group,
        seq=entry.seq,
        topic=entry.topic,
        subject=entry.subject,
        event_id=event.event_id,
        cause=cause,
        behind=None,
        error=error,
        fingerprint=hashlib.sha256(f"{group}\0{entry.topic}\0{cause}\0{error}".encode()).hexdigest()[:16],
        attempts=entry.attempt,
        version=entry.version,
        traceparent=head_of(event.body).traceparent,
        at_ms=at_ms,
    )
