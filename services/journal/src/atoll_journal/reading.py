"""The read side: `read` prints what was seen, `verify` goes through the chain. Both read beside the running journal."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from atoll_journal.codec import fields_of
from atoll_journal.ledger import ROOT, Reader, Row, Sighting, chained

FOLLOW_SECONDS = 0.2


def read(
    folder: Path, after: int = 0, subject: str | None = None, topic: str | None = None, *, follow: bool = False
) -> int:
    """Prints a JSON line an event; with `follow` goes on until it is interrupted. 0."""
    reader = Reader(folder)
    try:
        while True:
            for row in reader.rows(after, subject, topic):
                sys.stdout.write(line_of(row) + "\n")
                after = row.position
            sys.stdout.flush()
            if not follow:
                return 0
            time.sleep(FOLLOW_SECONDS)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:  # `… | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains as it flushes at its end
        return 0
    finally:
        reader.close()


def line_of(row: Row) -> str:
    """The event's own text stands in it as it came."""
    head = json.dumps(
        {"position": row.position, "log": row.log, "seq": row.seq, "stored_ms": row.stored_ms, "hash": row.hash.hex()}
    )
    return f'{head[:-1]}, "event": {row.event.decode("utf-8", errors="replace")}}}'


def verify(folder: Path) -> int:
    """Goes through the whole chain; prints the first row that is broken, or the head, and what violations there are.

    0: whole and without violations; 1: not.
    """
    reader = Reader(folder)
    try:
        position, head = 0, ROOT
        for row in reader.rows():
            wrong = _wrong(row, position, head)
            if wrong:
                print(f"broken at position {row.position}: {wrong}")
                return 1
            position, head = row.position, row.hash
        violations = reader.violations()
    finally:
        reader.close()
    print(f"whole: {position} events, head {head.hex()}")
    for at_ms, violation in violations:
        print(
            f"violation {violation.kind} at {at_ms} ms: seq {violation.seq}, key {violation.subject}: {violation.text}"
        )
    return 1 if violations else 0


def _wrong(row: Row, before: int, head: bytes) -> str:
    if row.position != before + 1:
        return f"expected position {before + 1}: rows are missing"
    if row.hash != chained(head, row.position, row.log, row.seq, row.stored_ms, row.event):
        return "its hash is not that of its content and the row before"
    try:
        said = Sighting.of(row.seq, row.event, fields_of(row.event))
    except ValueError:
        return "its event is not JSON"
    if (said.source, said.id, said.topic, said.subject) != (row.source, row.id, row.topic, row.subject):
        return "its columns are not what its event says"
    return ""
