"""One outbox each: a mark that goes up by exactly one, so that nothing is lost, doubled or reordered.

    committed mark ──────▶ mark        taken, waiting for the disk ──────▶ taken        next = taken + 1
    ...  ok  refused  ok  |  ok  ok  ok  |  EXPECTED
         duplicates, acked|  duplicates, acked with the first copy's commit

A plain high-water mark would lose event 2 of "1 ok, 2 BUSY, 3 ok": here 3 is not taken while 2 is missing.
"""

from __future__ import annotations

from typing import Final

from .commands import ProducerMark, PubAck, Refusal, Window
from .storage import ProducerRecord

REFUSALS_KEPT: Final = 1024


class Producer:
    """The state of one producer; what is in `taken` but not in `mark` is in a batch on its way to the disk."""

    def __init__(self, name: str, record: ProducerRecord) -> None:
        self.name = name
        self.mark = record.mark
        self.last_id = record.last_id
        self.refused = list(record.refused)
        self.taken = record.mark
        self.taken_id = record.last_id
        self.taken_bytes = 0
        self._taken_refused: list[Refusal] = []
        self._report_from = record.mark + 1

    @property
    def next(self) -> int:
        return self.taken + 1

    @property
    def pending(self) -> int:
        """Events taken and not yet on disk."""
        return self.taken - self.mark

    def take(self, event_id: str | None, refusal: Refusal | None) -> int:
        """Spends the next pseq and returns it. `event_id` is None where the envelope could not be read."""
        self.taken += 1
        self.taken_id = event_id
        if refusal is not None:
            self._taken_refused.append(refusal)
        return self.taken

    def repeat(self, first: int) -> None:
        """The client sent from `first` again: the next PUBACK repeats the verdicts from there on."""
        self._report_from = min(self._report_from, first)

    def record(self) -> ProducerRecord:
        """What the commit of everything taken so far shall write."""
        return ProducerRecord(self.taken, self.taken_id, (self.refused + self._taken_refused)[-REFUSALS_KEPT:])

    def take_back(self) -> bool:
        """The disk was full: what is not on it was never taken. True if there was any."""
        had = self.taken > self.mark
        self.taken, self.taken_id, self.taken_bytes = self.mark, self.last_id, 0
        self._taken_refused.clear()
        return had

    def committed(self, record: ProducerRecord) -> None:
        assert self.mark <= record.mark <= self.taken, "a commit moves the mark forward, within what was taken"
        self.mark, self.last_id, self.refused = record.mark, record.last_id, record.refused
        self._taken_refused = [refusal for refusal in self._taken_refused if refusal.pseq > record.mark]

    def opened(self) -> ProducerMark:
        """For WELCOME. A new session starts from the mark; what is on its way will be acked to it."""
        self._report_from = self.mark + 1
        return ProducerMark(self.mark, self.last_id, self.refused)

    def ack(self, window: Window) -> PubAck:
        refused = [refusal for refusal in self.refused if refusal.pseq >= self._report_from]
        self._report_from = self.mark + 1
        return PubAck(self.name, self.mark, refused, window)
