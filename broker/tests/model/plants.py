"""One-line bugs, each of a kind that somebody could make, that the model must find.

A plant is applied to a copy of the package, never to the tree. Its line must be there exactly once, or the plant is out
of date and fails loudly: a bug that was not planted proves nothing.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parents[2] / "src" / "atoll_broker"


class StalePlantError(Exception):
    """The line that a plant replaces is not in the source, or more than once."""


@dataclass(frozen=True)
class Plant:
    """`line` of `file`, without its indentation, becomes `instead`."""

    name: str
    file: str
    line: str
    instead: str
    breaks: str

    def apply(self, package: Path) -> None:
        """To a copy of the package."""
        path = package / self.file
        lines = path.read_text().split("\n")
        found = [number for number, line in enumerate(lines) if line.strip() == self.line]
        if len(found) != 1:
            raise StalePlantError(f"{self.name}: {self.file} has {len(found)} lines {self.line!r}, wanted one")
        indent = lines[found[0]][: -len(self.line)]
        lines[found[0]] = indent + self.instead
        path.write_text("\n".join(lines))


def copy_with(plant: Plant | None, folder: Path) -> Path:
    """A copy of the package in `folder`, to go first on the path; with the plant, or without as the control."""
    package = folder / "atoll_broker"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
    if plant is not None:
        plant.apply(package)
    return folder


_HOLDS: Final = "return entry.fence == fence and entry.member is not None and entry.member.session == session"
_ROOM: Final = "if self.draining or self.paused or self.bytes <= 0:"

PLANTS: Final = (
    Plant("mark off by one", "producers.py", "return self.taken + 1", "return max(1, self.taken)",
          "the last event of an outbox is stored twice"),
    Plant("ahead accepted", "publishing.py", "if pub.first > producer.next:", "if pub.first > producer.next + 1:",
          "an event that was BUSY is lost when the next one is taken"),
    Plant("duplicate stored", "publishing.py", "fresh = batch[producer.next - pub.first :]",
          "fresh = batch[max(0, producer.next - 1 - pub.first) :]", "what is sent again is stored again"),
    Plant("BUSY takes a part", "publishing.py", "return busy",
          "return self._take_all(session, producer, fresh[:1]) or busy",
          "half a batch is taken, and told BUSY"),
    Plant("ack before the commit", "producers.py", "return PubAck(self.name, self.mark, refused, window)",
          "return PubAck(self.name, self.taken, refused, window)", "an ack for what is not on disk"),
    Plant("verdicts told once", "producers.py", "self._report_from = min(self._report_from, first)", "pass",
          "a refusal whose PUBACK was lost is never heard of"),
    Plant("fence not looked at", "groups.py", _HOLDS, _HOLDS.replace("entry.fence == fence and ", ""),
          "a late ack finishes the next attempt"),
    Plant("any session may ack", "groups.py", _HOLDS, "return entry.fence == fence and entry.member is not None",
          "one member finishes what another has in hand"),
    Plant("floor past a hole", "groups.py", "floor = self._order[0].seq - 1 if self._order else self.scanned",
          "floor = self._order[-1].seq - 1 if self._order else self.scanned", "a restart skips unfinished events"),
    Plant("sparse ack forgotten", "groups.py", "if seq > self.floor:", "if seq > self.floor + 2:",
          "a finished event comes again after a restart"),
    Plant("acks without a floor dropped", "journal.py",
          "self._batch.acked = [(group, seq) for group, seq in self._batch.acked if seq > floors.get(group, 0)]",
          "self._batch.acked = [(group, seq) for group, seq in self._batch.acked if seq > floors.get(group, seq)]",
          "the same, where the floor stood still"),
    Plant("key not parked", "groups.py", 'return self.config.on_dead == "park" and subject in self.letters',
          "return False", "an order goes on behind its dead event"),
    Plant("one follower forgotten", "groups.py", "for follower in queue:", "for follower in list(queue)[1:]:",
          "the event next behind a dead one is never seen again"),
    Plant("replay out of order", "groups.py", "for seq, topic, subject in sorted(named):",
          "for seq, topic, subject in sorted(named, reverse=True):", "a key's events are released the wrong way round"),
    Plant("dead letter not on disk", "letters.py", "self._journal.letter(LetterPut(letter))", "pass",
          "a dead event comes back to life with a restart"),
    Plant("replayed letter kept", "groups.py", "if entry.replay:", "if entry.replay and entry.seq > self.floor:",
          "what a replay finished comes again after a restart"),
    Plant("attempt not on disk", "groups.py", "self._context.journal.attempt(self.name, entry.seq, entry.attempt)",
          "pass", "a poison message outlives its last attempt by restarts"),
    Plant("lease not freed", "groups.py",
          "held = [entry for entry in self._leases.values() if entry.member and entry.member.session == session]",
          "held = [e for e in self._leases.values() if died and e.member and e.member.session == session]",
          "what a resumed session had in hand is stuck"),
    Plant("drain counts as failure", "groups.py", "if died:", "if session:", "an orderly end costs an attempt"),
    Plant("credit not taken", "groups.py", "member.in_flight += 1", "member.in_flight += 1; member.events += 1",
          "a slow member is flooded"),
    Plant("suspect is served", "entries.py", _ROOM, _ROOM.replace(" or self.paused", ""),
          "events go to who does not answer"),
    Plant("draining is served", "entries.py", _ROOM, _ROOM.replace("self.draining or ", ""),
          "a member that drains never ends"),
    Plant("WIP without a cap", "groups.py", "elif now + self.config.lease_seconds <= entry.lease_limit:", "else:",
          "a handler that hangs holds its key for ever"),
    Plant("retention past a floor", "groups.py", "unhandled, dead = self.floor + 1, self.oldest_dead",
          "unhandled, dead = self.scanned + 1, self.oldest_dead", "events go before they were handled"),
    Plant("retention past dead letters", "groups.py",
          "return unhandled if dead is None else min(unhandled, dead)", "return unhandled",
          "a dead letter can not be replayed"),
    Plant("registry settles early", "watches.py", "if not self._settled and now >= self._settle_seconds:",
          "if not self._settled and now >= self._settle_seconds / 2:", "a gateway drops half of its routes"),
    Plant("rival not fenced", "core.py", "for rival in self.sessions.rivals(hello):",
          "for rival in self.sessions.rivals(hello)[1:]:", "two processes hold one slot"),
    Plant("fence of another boot", "core.py", "return (self.boot << FENCE_BITS) + self._fences",
          "return (1 << FENCE_BITS) + self._fences", "an ack from before a restart finishes another delivery"),
    Plant("stopped time counts", "clock.py",
          "self.now += min(max(0.0, current - self._last), TURN_SECONDS_MAX)",
          "self.now += max(0.0, current - self._last)", "a broker that was stopped evicts everyone"),
    Plant("keys before the disk", "core.py", "self._journal.after_commit(publish)", "publish()",
          "keys that a crash takes back"),
    Plant("held lease forgotten", "groups.py", "self._held_before = dict(record.leases)", "self._held_before = {}",
          "after a restart two slots have one event in hand"),
    Plant("floor lost by a full disk", "journal.py", "newer.floors = older.floors | newer.floors", "pass",
          "what was finished while the disk was full comes again"),
    Plant("full disk leaves a hole", "publishing.py", "self._next_seq = self._log.last + 1", "pass",
          "the log's numbers skip what a full disk refused"),
    Plant("loss of a tap not counted", "taps.py", "self.lost += 1", "pass", "a reader believes that it saw everything"),
    Plant("gap not told", "groups.py", "self.gaps.append(gap)", "pass", "a group never learns what it missed"),
    Plant("gap not on disk", "groups.py", "self._context.journal.gap(self.name, gap)", "pass",
          "nor does it after a restart"),
    Plant("a fault delays for ever", "groups.py", "entry.delayed_once = True", "pass", "a fault that loses events"),
    Plant("outbox without a rate", "publishing.py", "bucket.take(events)", "pass", "a fast publisher is not slowed"),
    Plant("group without a rate", "groups.py", "self._bucket.take(len(bodies))", "pass", "nor is its consumer spared"),
    Plant("replay of what waits", "groups.py",
          "return [place for place in places if place.seq <= self.scanned and place.seq not in waiting]",
          "return [place for place in places if place.seq <= self.scanned]", "an event is in its queue twice"),
    Plant("replay not on disk", "groups.py",
          "self._context.journal.letter(replay_of(self.name, place, replay.by, self._context.wall_ms()))", "pass",
          "a restart forgets a replay"),
    Plant("replay passes the first dead one", "letters.py",
          "free = taken.index(False) if park and False in taken else len(letters)", "free = len(letters)",
          "a charge is replayed whose order is still dead"),
    Plant("duplicates taken for done", "groups.py", 'entry.replay_of.duplicate += what == "duplicate"',
          'entry.replay_of.done += what == "duplicate"', "a second replay seems to have had a second effect"),
)  # fmt: skip
