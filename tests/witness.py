"""What the witness of a fleet has kept, beside what the broker's log holds: both read-only."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections import Counter, defaultdict
from dataclasses import dataclass

from fleet import REPOSITORY, Fleet
from polling import poll_until
from topology import PARTS


@dataclass(frozen=True)
class Kept:
    """One event: where it stands in the broker's log, and what it is."""

    seq: int
    topic: str
    subject: str
    id: str
    body: bytes


def published(shop: Fleet) -> list[Kept]:
    """Every event of the broker's log, in its order."""
    with shop.database("broker") as database:
        rows = database.execute("SELECT seq, topic, subject, event_id, body FROM events ORDER BY seq").fetchall()
    return [Kept(*row) for row in rows]


def witnessed(shop: Fleet) -> list[Kept]:
    """Every event that the journal has, in the order in which it stored them."""
    with shop.database("journal") as database:
        rows = database.execute("SELECT seq, topic, subject, id, event FROM events ORDER BY position").fetchall()
    return [Kept(*row) for row in rows]


def run_journal(shop: Fleet, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m atoll_journal WORDS` over the fleet's journal, as an operator runs it."""
    python = next((REPOSITORY / ".atoll" / "env").glob("journal/bin/python"))
    return subprocess.run(
        [str(python), "-m", "atoll_journal", *words],
        cwd=REPOSITORY / PARTS["journal"], text=True, capture_output=True, timeout=60, check=False,
        env=os.environ | {"ATOLL_DATA": str(shop.state / "data" / "journal-1")},
    )  # fmt: skip


def assert_witness_has_all(shop: Fleet, seconds: float = 60) -> int:
    """Every event of the log is in the journal, its very bytes, once, in order per key. How many."""
    log = published(shop)
    assert log, "an empty log proves nothing"
    poll_until("the journal to catch up", lambda: len(witnessed(shop)), lambda have: have >= len(log), seconds=seconds)
    kept = witnessed(shop)
    twice = [seq for seq, times in Counter(each.seq for each in kept).items() if times > 1]
    assert not twice, f"in the journal more than once: {twice}"
    missing = {each.id for each in log} - {each.id for each in kept}
    assert not missing, f"{len(missing)} of {len(log)} events were not witnessed: {sorted(missing)[:5]}"
    assert {each.seq: each for each in kept} == {each.seq: each for each in log}
    by_key: dict[str, list[int]] = defaultdict(list)
    for each in kept:
        by_key[each.subject].append(each.seq)
    backwards = {key: seqs for key, seqs in by_key.items() if seqs != sorted(seqs)}
    assert not backwards, f"out of order in their key: {backwards}"
    return len(kept)


def assert_witness_is_complete(shop: Fleet, seconds: float = 60) -> int:
    """The same, and the chain whole by the journal's own word."""
    count = assert_witness_has_all(shop, seconds)
    verified = run_journal(shop, "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert verified.stdout.startswith(f"whole: {count} events, head ")
    return count


def journal_of(shop: Fleet) -> sqlite3.Connection:
    """The journal's database, to be written by a test that tampers with it; stop the journal first."""
    return sqlite3.connect(shop.database_path("journal"), isolation_level=None)
