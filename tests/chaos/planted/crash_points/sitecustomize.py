"""Crash points: the process kills itself at the n-th passing of a named point, when a file says so.

The file (PLANTED_CRASH names the folder, the slot's name the file) holds `POINT N`. It is removed just before the
signal, so its absence proves that the crash happened, and the next process lives.

    before_commit   all statements of a transaction have run
    after_commit    it is committed; nobody has been told (no 202, no ack, no bell for the relay)
    after_ack       the acknowledgement is queued
    before_publish  the outbox rows are read; nothing is sent
    after_publish   the broker's PUBACK is here; the outbox does not know

and, of notifications alone:

    before_file     the mail is committed; the maildir has nothing
    after_file      the mail lies in the maildir; the database does not know
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ARMED = Path(os.environ["PLANTED_CRASH"]) / os.environ["ATOLL_SLOT"].partition("/")[0]
passed: Counter[str] = Counter()


def pass_by(point: str) -> None:
    """Die here if this is the passing that the file asks for."""
    try:
        wanted, number = ARMED.read_text().split()
    except (FileNotFoundError, ValueError):
        passed.clear()
        return
    if wanted != point:
        return
    passed[point] += 1
    if passed[point] == int(number):
        ARMED.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def plant(owner: Any, name: str, point: str, *, before: bool) -> None:
    """Wrap a function so that its callers pass by a point before or after it."""
    right: Callable[..., Any] = getattr(owner, name)

    def passing(*args: Any, **more: Any) -> Any:
        if before:
            pass_by(point)
        result = right(*args, **more)
        if not before:
            pass_by(point)
        return result

    setattr(owner, name, passing)


if ARMED.name == "journal":  # the witness has no SDK: the same steps, its own functions
    from atoll_journal import ledger, witness

    plant(ledger.Ledger, "_store", "before_commit", before=False)
    plant(ledger.Ledger, "store", "after_commit", before=False)
    plant(witness.Witness, "_store", "after_ack", before=False)
else:
    from atoll import _consumer, _database, _outbox, _relay

    plant(_outbox, "append", "before_commit", before=False)
    plant(_database.Database, "_hand_out", "after_commit", before=True)
    plant(_consumer.Consumer, "_answer", "after_ack", before=False)
    plant(_relay.wire, "batch", "before_publish", before=True)
    plant(_relay.Relay, "_acknowledged", "after_publish", before=True)

if ARMED.name == "notifications":
    from atoll_notifications import courier, maildir

    plant(maildir.Maildir, "deliver", "before_file", before=True)
    plant(courier, "_filed", "after_file", before=True)
