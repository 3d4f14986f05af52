"""A bit flips while the broker is down: it refuses with exit 74 and one clear line, or everything that was acked comes.

`broker/tests/test_integrity.py` flips thousands of bits below the process; this is what its operator and its peers see.
"""

from __future__ import annotations

import copy
import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

from measured import say
from parties import Consumer
from polling import poll_until
from rounds import SEED, EndedError, Machine, machine

pytest_plugins = ["power_fixtures"]

EXIT_STORAGE, EXIT_NOT_OURS = 74, 75
EVENTS = 300
FLIPS_A_REGION = 3
PAGE, WAL_HEADER, FRAME_HEADER = 4096, 32, 24
LOG, WAL, MARK = "broker.sqlite", "broker.sqlite-wal", "broker.watermark"
#: Which program's database it is, and of which version: a flip there can not be told from another's.
IDENTITY = (*range(60, 64), *range(68, 72))


@dataclass(frozen=True)
class Region:
    """Some bytes of a file."""

    file: str
    what: str
    places: tuple[range, ...]

    def choose(self, dice: Random) -> int:
        """One of them; each range as likely as another."""
        return dice.choice(dice.choice(self.places))


def test_a_flipped_bit_is_refused_or_costs_nothing(tmp_path: Path, python: Path) -> None:
    dice, outcomes, regions = Random(SEED), Counter[str](), 0
    with machine(tmp_path, python) as site:
        for end in (signal.SIGTERM, signal.SIGKILL):
            saved = tmp_path / f"saved-{end}"
            work_and_end(site, end, saved)
            for region in regions_of(saved):
                regions += 1
                for _ in range(FLIPS_A_REGION):
                    outcomes[outcome(site, saved, region, dice)] += 1
    say(f"bit flips: {sum(outcomes.values())} in {regions} regions: {dict(outcomes)}, none silent (seed {SEED})")
    assert regions >= 20
    assert outcomes["refused"] >= regions


def work_and_end(site: Machine, end: signal.Signals, saved: Path) -> None:
    """More events, most of them acked; then the broker ends, and its files are saved."""
    site.boot()
    with site.peers("shop", "bank", "control") as peers:
        site.meet(peers)
        last = site.publisher.acked + EVENTS

        def acked() -> int:
            site.publisher.hear()
            site.publisher.publish(last)
            site.consumer.hear()
            return site.publisher.acked

        poll_until(f"{last} events to be acked", acked, lambda count: count >= last, seconds=30, every=0.01)
        poll_until("deliveries", site.consumer.hear, lambda count: count == 0, seconds=10, every=0.3)
    site.broker.signal(end)
    site.broker.wait()
    shutil.copytree(site.broker.data, saved, ignore=shutil.ignore_patterns("*-shm"))


def regions_of(folder: Path) -> Iterator[Region]:
    """Headers and pages of the database, and of its write-ahead log if it has one."""
    yield Region(LOG, "header", (range(100),))
    yield Region(MARK, "all of it", (range(512),))
    if (folder / WAL).exists() and (folder / WAL).stat().st_size:
        yield from _of_the_wal((folder / WAL).stat().st_size)
        return
    with closing(sqlite3.connect(f"file:{folder / LOG}?mode=ro&immutable=1", uri=True)) as database:
        roots = database.execute("SELECT name, rootpage FROM sqlite_master WHERE rootpage > 0").fetchall()
    for name, root in [("schema", 1), *roots]:
        start = (root - 1) * PAGE
        head = range(start + (100 if root == 1 else 0), start + (112 if root == 1 else 12))
        yield Region(LOG, f"{name}, its first page", (head, range(start + PAGE - 200, start + PAGE)))
    yield Region(LOG, "anywhere", (range((folder / LOG).stat().st_size),))


def _of_the_wal(size: int) -> Iterator[Region]:
    yield Region(WAL, "header", (range(WAL_HEADER),))
    frames = (size - WAL_HEADER) // (FRAME_HEADER + PAGE)
    for what, number in (("first", 0), ("middle", frames // 2), ("last", frames - 1)):
        start = WAL_HEADER + number * (FRAME_HEADER + PAGE)
        yield Region(WAL, f"{what} frame, header", (range(start, start + FRAME_HEADER),))
        yield Region(WAL, f"{what} frame, page", (range(start + FRAME_HEADER, start + FRAME_HEADER + PAGE),))


def outcome(site: Machine, saved: Path, region: Region, dice: Random) -> str:
    """Flip, boot, and ask for everything. Raises AssertionError if something is missing without a word."""
    hurt = site.broker.data.parent / "hurt"
    shutil.rmtree(hurt, ignore_errors=True)
    shutil.copytree(saved, hurt)
    at, bit = region.choose(dice), dice.randrange(8)
    _flip(hurt / region.file, at, bit)
    before = {name: (hurt / name).read_bytes() for name in (LOG, WAL, MARK) if (hurt / name).exists()}
    look = copy.copy(site)
    look.broker, look.publisher = copy.copy(site.broker), copy.copy(site.publisher)
    look.broker.data = hurt
    try:
        code = look.broker.start()
        if code is not None:
            _assert_refused(look, code, region, at, before)
            return "refused"
        return _all_is_there(look)
    except AssertionError as error:
        raise AssertionError(f"ATOLL_SEED={SEED}, bit {bit} of byte {at} ({region}): {error}") from error


def _flip(path: Path, at: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def _assert_refused(look: Machine, code: int, region: Region, at: int, before: dict[str, bytes]) -> None:
    identity = region.file == LOG and at in IDENTITY
    assert code == (EXIT_NOT_OURS if identity else EXIT_STORAGE), f"exit {code}: {look.broker.words()}"
    words = look.broker.words().splitlines()
    assert words[-1].startswith("atoll-broker: "), words
    assert not any("Traceback" in line for line in words), words
    if "can not open" not in words[-1]:  # refused at a look, and not by SQLite on the way
        for name, data in before.items():
            assert (look.broker.data / name).read_bytes() == data, f"{name} was changed"


def _all_is_there(look: Machine) -> str:
    """Every promise, through the peers that were given them; or it stops at what it can not read, with exit 74."""
    try:
        with look.peers("shop", "control", "bank") as peers:
            look.consumer = copy.copy(look.consumer)
            look.meet(peers)
        look.drain(Consumer("audit", Random(0)), "audit")
    except (EndedError, TimeoutError) as silence:
        poll_until("the broker to have ended, since it answers nobody", look.broker.has_ended, seconds=5)
        if look.broker.wait() != EXIT_STORAGE:
            raise AssertionError(f"{silence}: {look.broker.words()}") from silence
        return "stopped when it was read"
    look.broker.signal(signal.SIGKILL)
    look.broker.wait()
    return "harmless"
