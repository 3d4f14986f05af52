"""Somebody with a known key who is granted nothing, and somebody whose key nobody knows. Both try.

Every attempt is announced before it is made, and every answer is written down: `granted` must never stand there.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import zmq

from histories.line import Line, LostError, RefusedError
from histories.records import Record, dumps
from histories.roles.role import Life, begin

ANSWER_TRIES = 20
PAUSE_SECONDS_MAX = 0.2


class Stranger:
    """Each round tries everything once."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._more = life.config.more
        self._ids = itertools.count(1)

    def run(self) -> None:
        """Until SIGTERM."""
        attempts: list[Callable[[], str]] = [
            self._announce, self._forge_a_slot, self._subscribe, self._publish, self._acknowledge, self._administer,
            self._unknown_key,
        ]  # fmt: skip
        for attempt in itertools.cycle(attempts):
            if self._life.ending:
                return
            name = attempt.__name__.strip("_")
            self._life.say("attempt", what=name)
            try:
                outcome = attempt()
            except RefusedError as refused:
                outcome = f"refused {refused}"
            except LostError as lost:
                outcome = f"unknown {lost}"
            self._life.say("outcome", what=name, outcome=outcome)
            self._life.pause(PAUSE_SECONDS_MAX)

    # ---- attempts: "granted …", "refused …" or "unknown …" -------------------------------------------------------

    def _announce(self) -> str:
        return self._opening(self._life.config.slot, publishes={self._more["topic"]: {}})

    def _forge_a_slot(self) -> str:
        return self._opening(self._more["forged_slot"])

    def _opening(self, slot: str, **header: object) -> str:
        line = self._life.line()
        try:
            line.open(slot, **header)
            return "granted WELCOME"
        finally:
            line.close()

    def _subscribe(self) -> str:
        group = self._more["group"]
        asked = {"group": group, "topics": [self._more["topic"]], "max_in_flight": 10}
        credit = {"group": group, "events": 10, "bytes": 1_000_000}
        return self._within_a_session([("SUB", asked, None), ("CREDIT", credit, None)])

    def _acknowledge(self) -> str:
        """Somebody else's deliveries: seq and fence are easy to guess."""
        named = [[seq, (boot << 32) + seq] for boot in (1, 2) for seq in range(1, 20)]
        verdict = {"group": self._more["group"], "messages": named, "error": "stolen"}
        return self._within_a_session(
            [("ACK", {"group": self._more["group"], "done": named}, None), ("TERM", verdict, None)]
        )

    def _administer(self) -> str:
        return self._within_a_session([("ADMIN", {"request": "r", "verb": "groups"}, None)])

    def _publish(self) -> str:
        """Under its own name, an event of somebody else's topic."""
        event_id = f"stranger-{Line.process}-{next(self._ids)}"
        self._life.say("pub", id=event_id, kind="forged", topic=self._more["topic"], producer="stranger", pseq=0)
        event = {
            "specversion": "1.0", "id": event_id, "source": "/stranger", "type": self._more["topic"], "subject": "k",
            "time": "2026-01-01T00:00:00Z", "datacontenttype": "application/json", "data": {"n": 1, "kind": "plain"},
        }  # fmt: skip
        producer = f"stranger/{Line.process}"
        return self._within_a_session([("PUB", {"producer": producer, "first": 1}, dumps([event]))], producer)

    def _within_a_session(self, said: list[tuple[str, Record, str | None]], producer: str | None = None) -> str:
        line = self._life.line()
        try:
            line.open(self._life.config.slot, producer=producer)
            for command, header, payload in said:
                line.send(command, header, payload)
            return self._answer(line)
        finally:
            line.close()

    def _answer(self, line: Line) -> str:
        """What came back: the worst of it."""
        heard: list[str] = []
        for _ in range(ANSWER_TRIES):
            message = line.receive(50)
            if message is None:
                if heard:
                    break
                continue
            match message.command:
                case "MSG" | "SUBOK" | "RESULT":
                    return f"granted {message.command} {json.dumps(message.header)[:200]}"
                case "PUBACK" if not message.header["refused"]:
                    return "granted PUBACK"
                case "PUBACK":
                    heard.append(f"PUBACK refused {message.header['refused'][0]['code']}")
                case "ERR":
                    heard.append(message.header["code"])
        return f"refused {' '.join(heard)}" if heard else "unknown silence"

    def _unknown_key(self) -> str:
        folder = self._life.config.state / "unknown-key"
        folder.mkdir(exist_ok=True)
        _write_pair(folder, self._life.config.keys)
        line = Line(self._life.config.endpoint, folder)
        try:
            line.open(self._life.config.slot)
            return "granted WELCOME"
        except RefusedError as answered:
            return f"granted an answer to an unknown key: {answered}"
        except LostError:
            return "refused silence"
        finally:
            line.close()


def _write_pair(folder: Path, keys: Path) -> None:
    public, secret = zmq.curve_keypair()
    (folder / "curve.public").write_bytes(public)
    (folder / "curve.secret").write_bytes(secret)
    (folder / "broker.public").write_bytes((keys / "broker.public").read_bytes())


if __name__ == "__main__":
    Stranger(begin()).run()
