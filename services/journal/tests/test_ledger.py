"""What is kept: once, in order, on the disk, chained."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from support import LOG, PROJECT, event, rows

from atoll_journal import reading
from atoll_journal.codec import _parse
from atoll_journal.errors import ConfigurationError, LockedError, NoRoomError, StorageError
from atoll_journal.ledger import ROOT, Ledger, Sighting, chained


def seen(seq: int, number: int | None = None, subject: str = "o-1") -> Sighting:
    raw = event(seq if number is None else number, subject)
    return Sighting.of(seq, raw, _parse.decode(raw.decode()))


def kinds(ledger: Ledger, *sightings: Sighting, log: str = LOG) -> list[str]:
    return [violation.kind for violation in ledger.store(log, sightings).violations]


def test_what_is_stored_is_there_with_its_bytes(ledger: Ledger, tmp_path: Path) -> None:
    stored = ledger.store(LOG, [seen(7), seen(9, subject="o-2")])
    assert (stored.new, stored.known, stored.violations) == ([7, 9], [], [])
    first, second = rows(tmp_path)
    assert (first.position, first.log, first.seq, first.event, first.subject) == (1, LOG, 7, event(7), "o-1")
    assert (second.position, second.seq) == (2, 9)
    assert first.hash == chained(ROOT, 1, LOG, 7, first.stored_ms, event(7))
    assert second.hash == chained(first.hash, 2, LOG, 9, second.stored_ms, event(9, "o-2"))


def test_what_a_crash_left_in_the_log_is_written_anew(ledger: Ledger, tmp_path: Path) -> None:
    ledger.store(LOG, [seen(1)])
    left = tmp_path / "left"
    left.mkdir()
    for path in (ledger.path, ledger.path.with_name(ledger.path.name + "-wal")):
        shutil.copy(path, left)
    again = Ledger(left, PROJECT / "migrations")
    again.open()
    assert (left / f"{ledger.path.name}-wal").stat().st_size == 0
    assert again.position == 1
    again.close()


def test_what_comes_again_is_known_and_kept_once(ledger: Ledger, tmp_path: Path) -> None:
    ledger.store(LOG, [seen(1), seen(2)])
    again = ledger.store(LOG, [seen(2), seen(3), seen(1)])
    assert (again.new, again.known, again.violations) == ([3], [2, 1], [])
    assert [row.seq for row in rows(tmp_path)] == [1, 2, 3]


def test_it_is_known_within_one_batch_too(ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.store(LOG, [seen(1), seen(1)]).known == [1]
    assert len(rows(tmp_path)) == 1


def test_a_key_that_goes_backwards_is_kept_and_told(ledger: Ledger, tmp_path: Path) -> None:
    assert kinds(ledger, seen(5)) == []
    assert kinds(ledger, seen(4)) == ["ORDER"]
    assert kinds(ledger, seen(3, subject="another key")) == []
    assert [row.seq for row in rows(tmp_path)] == [5, 4, 3]
    assert ledger.violations == 1


def test_a_violation_that_is_delivered_again_is_no_second_one(ledger: Ledger) -> None:
    kinds(ledger, seen(5), seen(9, number=5))
    kinds(ledger, seen(9, number=5))
    assert ledger.violations == 1


def test_one_event_at_two_places_of_the_log_is_told_and_kept_at_both(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kinds(ledger, seen(5), seen(6, number=5)) == ["TWICE"]
    assert [(row.seq, row.id) for row in rows(tmp_path)] == [(5, "e-5"), (6, "e-5")]
    again = ledger.store(LOG, [seen(6, number=5), seen(5)])
    assert (again.new, again.known, again.violations, ledger.violations) == ([], [6, 5], [], 1)
    assert reading.verify(tmp_path) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("whole: 2 events")
    assert out[1].startswith("violation TWICE at ")
    assert out[1].endswith("event e-5 came before as seq 5")


def test_an_id_that_is_used_again_keeps_no_event_out(ledger: Ledger, tmp_path: Path) -> None:
    """Else who publishes could hide an event from the witness, by the id of an old one."""
    paid = event(5, data={"refunded": "1000000.00"})
    said = Sighting.of(6, paid, _parse.decode(paid.decode()))
    assert kinds(ledger, seen(5)) == []
    assert kinds(ledger, said) == ["TWICE"]
    assert rows(tmp_path)[1].event == paid


def test_an_event_whose_bytes_have_changed_is_told_and_kept(ledger: Ledger, tmp_path: Path) -> None:
    changed = event(5, data={"n": 6})
    said = Sighting.of(5, changed, _parse.decode(changed.decode()))
    assert kinds(ledger, seen(5), said) == ["SEQ"]
    again = ledger.store(LOG, [said, seen(5)])
    assert (again.known, again.violations) == ([5, 5], [])
    assert [row.event for row in rows(tmp_path)] == [event(5), changed]


def test_an_event_that_comes_again_in_another_log_is_told_and_kept(ledger: Ledger, tmp_path: Path) -> None:
    assert kinds(ledger, seen(5)) == []
    assert kinds(ledger, seen(5), log="another") == ["TWICE"]
    assert [row.log for row in rows(tmp_path)] == [LOG, "another"]


def test_a_journal_of_the_first_version_keeps_repeats_from_now_on(tmp_path: Path) -> None:
    first = tmp_path / "migrations"
    first.mkdir()
    shutil.copy(PROJECT / "migrations" / "0001-journal.sql", first)
    old = Ledger(tmp_path, first)
    old.open()
    old.store(LOG, [seen(5)])
    old.close()
    ledger = Ledger(tmp_path, PROJECT / "migrations")
    ledger.open()
    assert kinds(ledger, seen(6, number=5)) == ["TWICE"]
    assert [row.position for row in rows(tmp_path)] == [1, 2]
    ledger.close()


def test_two_events_at_one_place_of_the_log_are_told_and_kept(ledger: Ledger, tmp_path: Path) -> None:
    assert kinds(ledger, seen(5), seen(5, number=6, subject="o-2")) == ["SEQ"]
    assert len(rows(tmp_path)) == 2


def test_a_new_log_counts_from_the_start_and_that_is_no_violation(ledger: Ledger, tmp_path: Path) -> None:
    assert kinds(ledger, seen(5)) == []
    assert kinds(ledger, seen(1, number=100), log="another") == []
    assert [(row.log, row.seq) for row in rows(tmp_path)] == [(LOG, 5), ("another", 1)]


def test_the_next_life_goes_on_with_the_chain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seqs in ((1, 2), (2, 3)):
        ledger = Ledger(tmp_path, PROJECT / "migrations")
        ledger.open()
        ledger.store(LOG, [seen(seq) for seq in seqs])
        ledger.close()
    assert reading.verify(tmp_path) == 0
    assert capsys.readouterr().out.startswith("whole: 3 events, head ")


def test_what_could_not_be_committed_is_as_if_it_had_not_come(ledger: Ledger, tmp_path: Path) -> None:
    ledger.store(LOG, [seen(1)])
    (size,) = ledger._db.execute("PRAGMA page_count").fetchone()  # type: ignore[union-attr]
    ledger._db.execute(f"PRAGMA max_page_count = {size}")  # type: ignore[union-attr]
    with pytest.raises(NoRoomError, match="full"):
        ledger.store("another", [seen(seq, subject=f"o-{seq}") for seq in range(2, 200)])
    assert (ledger.position, len(rows(tmp_path))) == (1, 1)
    ledger._db.execute("PRAGMA max_page_count = 1000000")  # type: ignore[union-attr]
    assert ledger.store(LOG, [seen(2)]).new == [2]
    assert reading.verify(tmp_path) == 0


def test_a_corrupt_file_is_loud(ledger: Ledger, tmp_path: Path) -> None:
    ledger.store(LOG, [seen(seq) for seq in range(1, 100)])
    ledger.close()
    path = tmp_path / "journal.db"
    spoilt = bytearray(path.read_bytes())
    spoilt[4096:] = b"\xff" * (len(spoilt) - 4096)
    path.write_bytes(spoilt)
    with pytest.raises(StorageError, match="malformed"):
        ledger.open()


def test_two_processes_do_not_write_one_journal(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(LockedError, match="another process"):
        Ledger(tmp_path, PROJECT / "migrations").open()


def test_a_database_of_a_later_journal_is_not_touched(ledger: Ledger, tmp_path: Path) -> None:
    ledger.close()
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(ConfigurationError, match="is at migration 7"):
        ledger.open()


def test_odd_envelopes_are_kept(ledger: Ledger, tmp_path: Path) -> None:
    raw = rb'{"id":"\ud800","source":5,"type":null,"subject":"o-1\u0000"}'
    ledger.store(LOG, [Sighting.of(1, raw, _parse.decode(raw.decode())), Sighting.of(2, b"7", {})])
    assert [row.event for row in rows(tmp_path)] == [raw, b"7"]
    assert reading.verify(tmp_path) == 0


TAMPER: dict[str, tuple[Callable[[sqlite3.Connection], object], int]] = {
    "changed": (lambda db: db.execute("UPDATE events SET event = ? WHERE position = 3", (event(99),)), 3),
    "taken out": (lambda db: db.execute("DELETE FROM events WHERE position = 3"), 4),
    "moved": (lambda db: db.execute("UPDATE events SET seq = 70 WHERE position = 3"), 3),
    "dated back": (lambda db: db.execute("UPDATE events SET stored_ms = stored_ms - 1 WHERE position = 3"), 3),
    "renamed": (lambda db: db.execute("UPDATE events SET subject = 'o-9' WHERE position = 3"), 3),
    "rehashed": (lambda db: db.execute("UPDATE events SET hash = zeroblob(32) WHERE position = 3"), 3),
    "the first gone": (lambda db: db.execute("DELETE FROM events WHERE position = 1"), 2),
}


@pytest.mark.parametrize("how", TAMPER)
def test_tampering_is_found_at_its_place(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    ledger.store(LOG, [seen(seq) for seq in range(1, 6)])
    tamper, place = TAMPER[how]
    with sqlite3.connect(tmp_path / "journal.db") as db:
        tamper(db)
    assert reading.verify(tmp_path) == 1
    assert capsys.readouterr().out.startswith(f"broken at position {place}: ")


def test_violations_are_told_by_verify(ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger.store(LOG, [seen(5), seen(4)])
    assert reading.verify(tmp_path) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("whole: 2 events")
    assert out[1].startswith("violation ORDER at ")


def test_read_prints_what_is_asked_for(ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger.store(LOG, [seen(1), seen(2, subject="o-2"), seen(3)])
    assert reading.read(tmp_path, after=1, subject="o-1") == 0
    [line] = [_parse.decode(line) for line in capsys.readouterr().out.splitlines()]
    assert (line["position"], line["seq"], line["event"]["id"]) == (3, 3, "e-3")
    assert reading.read(tmp_path, topic="no.such.topic.v1") == 0
    assert capsys.readouterr().out == ""


def test_there_is_nothing_to_read_where_there_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="with journal"):
        reading.verify(tmp_path)
