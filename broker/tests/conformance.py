"""Runs the cases of spec/conformance against whatever a Driver reaches. The words are those of its README.

    case (JSON) ─▶ Run: values, what was heard, what may come ─▶ Driver: sockets and time

A Run knows nothing of this broker: only frames go out and come in.
"""

from __future__ import annotations

import base64
import json
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

SPEC: Final = Path(__file__).parent.parent / "spec"
WORLD: Final[dict[str, Any]] = json.loads((SPEC / "conformance" / "world.json").read_text(encoding="utf-8"))
PINGS_PER_HEARTBEAT: Final = 4
BYTES_MAX: Final = 1 << 20
Frames = list[bytes]
Case = dict[str, Any]
Step = dict[str, Any]


def cases() -> list[Case]:
    """Every case, with `file` added."""
    found = []
    for path in sorted((SPEC / "conformance" / "cases").glob("*.json")):
        found += [{**case, "file": path.stem} for case in json.loads(path.read_text(encoding="utf-8"))]
    return found


def mesh_of(case: Case) -> str:
    """The case's mesh.toml."""
    return _toml(_laid_over(WORLD["mesh"], case.get("mesh", {})))


class Driver(Protocol):
    """Sockets of a broker, and its time."""

    least_ms: int
    """How long to wait for what should come at once."""

    def open(self, peer: str, identity: str) -> None:
        """A new socket under this name."""

    def close(self, peer: str) -> None:
        """Without a word."""

    def send(self, peer: str, frames: Frames) -> None:
        """One message."""

    def receive(self, peer: str) -> list[Frames]:
        """What has come since."""

    def wait(self, seconds: float) -> float:
        """So much time passes, or less if something comes; how much it was."""

    def restart(self, *, clean: bool) -> None:
        """The broker ends, cleanly or at once; sockets stay until they are closed. It starts at `start`."""

    def start(self) -> None:
        """On the same data; every socket is gone."""


@dataclass
class Exchange:
    """One message that was said. `to_broker` is its direction."""

    to_broker: bool
    frames: Frames
    refused: dict[str, Any] | None = None


@dataclass
class Heard:
    """What a socket has heard and no step has asked for yet."""

    identity: str
    up: bool = False
    mute: bool = False
    producer: str | None = None
    others: deque[tuple[str, dict[str, Any]]] = field(default_factory=deque)
    acks: deque[dict[str, Any]] = field(default_factory=deque)
    deliveries: list[dict[str, Any]] = field(default_factory=list)
    pongs: int = 0
    ping: bytes = b"{}"
    lost: int = 0

    def left(self) -> list[Any]:
        """What should have been expected."""
        others = [message for message in self.others if message[0] != "STATE"]
        return [*others, *self.acks, *self.deliveries]


class Run:
    """One case on one broker. `play` raises AssertionError naming the step."""

    def __init__(self, case: Case, driver: Driver) -> None:
        self.case = case
        self.driver = driver
        self.peers: dict[str, Heard] = {}
        self.values: dict[str, Any] = {}
        self.exchanged: list[Exchange] = []
        mesh = _laid_over(WORLD["mesh"], case.get("mesh", {}))
        self._ping_seconds = mesh["bus"]["heartbeat_seconds"] / PINGS_PER_HEARTBEAT
        self._ping_in = self._ping_seconds
        self._last = ""

    def play(self) -> None:
        for number, step in enumerate(self.case["steps"]):
            try:
                _VERBS[next(iter(step))](self, step)
            except AssertionError as error:
                heard = {name: peer.left() for name, peer in self.peers.items() if peer.left()}
                where = f"{self.case['case']}, step {number + 1} {json.dumps(step)[:400]}"
                raise AssertionError(f"{where}\n{error}\nheard and not asked for: {str(heard)[:2000]}") from None
        self._collect()
        left = {name: peer.left() for name, peer in self.peers.items() if peer.left()}
        assert not left, f"{self.case['case']}: no step expected {str(left)[:2000]}"

    # ---- out ---------------------------------------------------------------------------------------------------------

    def open(self, peer: str) -> Heard:
        identity = peer.rstrip("0123456789")
        self.driver.open(peer, identity)
        self.peers[peer] = Heard(identity)
        return self.peers[peer]

    def say(self, peer: str, command: str, header: Any, batch: Sequence[Any] | None = None) -> None:
        frames = [b"A1" + command.encode(), _encoded(self._made(header))]
        if batch is not None:
            frames.append(_encoded([self._event(event) for event in batch]))
        self.say_frames(peer, frames)

    def say_frames(self, peer: str, frames: Frames) -> None:
        if peer not in self.peers:
            self.open(peer)
        self._let_be_heard(peer)
        self._collect()  # what comes from now on may be the answer
        self.exchanged.append(Exchange(True, frames))
        self.driver.send(peer, frames)

    def _let_be_heard(self, speaker: str) -> None:
        """Two sockets have no order between them: what the last one said is heard before another speaks."""
        last, self._last = self._last, speaker
        before = self.peers.get(last)
        if last == speaker or before is None or not before.up or before.mute:
            return
        self._collect()
        before.pongs = 0
        self.driver.send(last, [b"A1PING", before.ping])
        self.until(f"the broker's PONG to {last}", lambda: before.pongs or not before.up, {})

    def _made(self, value: Any) -> Any:
        """The value of a `send`, with variables and generators replaced."""
        if isinstance(value, str) and value.startswith("$"):
            return self.values[value[1:]]
        if isinstance(value, list):
            return [self._made(one) for one in value]
        if not isinstance(value, dict):
            return value
        match next(iter(value), ""):
            case "$nest":
                return _nested(value["$nest"])
            case "$times":
                what, count = value["$times"]
                return [self._made(what)] * count
            case "$text":
                text, count = value["$text"]
                return text * count
            case "$count":
                text, count = value["$count"]
                return [text.format(number) for number in range(1, count + 1)]
        return {name: self._made(one) for name, one in value.items()}

    def _event(self, made_from: Any) -> Any:
        if isinstance(made_from, dict) and "event" not in made_from:
            return made_from
        given = {"event": made_from} if isinstance(made_from, str) else dict(made_from)
        name, subject = given.pop("event").split(" ")
        number = int(re.sub(r"\D", "", name) or "0")
        body = {**WORLD["event"], "id": name, "subject": subject, "data": {"n": number}, **self._made(given)}
        return {key: value for key, value in body.items() if value is not None}

    # ---- in ----------------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        for name, peer in self.peers.items():
            for frames in self.driver.receive(name):
                self._hear(peer, frames)

    def _hear(self, peer: Heard, frames: Frames) -> None:
        command, header = frames[0].removeprefix(b"A1").decode(), json.loads(frames[1])
        self.exchanged.append(Exchange(False, frames))
        if command == "MSG":
            bodies = json.loads(frames[2])
            for (seq, attempt, _, fence), body in zip(header["messages"], bodies, strict=True):
                known = {"group": header["group"], "seq": seq, "attempt": attempt, "fence": fence, "body": body}
                peer.deliveries.append(known)
            peer.lost += header.get("lost", 0)
        elif command == "PUBACK":
            peer.acks.append(header)
        elif command == "PONG":
            peer.pongs += 1
        else:
            self._hear_other(peer, command, header)

    def _hear_other(self, peer: Heard, command: str, header: dict[str, Any]) -> None:
        peer.others.append((command, header))
        if command == "WELCOME":
            peer.up = True
        if command in ("FENCED", "BYE") or (command == "ERR" and header["closes"]):
            peer.up = False
        if command == "ERR" and header["code"] in ("FRAMES", "VERSION", "HEADER", "COMMAND", "PAYLOAD"):
            said = next(one for one in reversed(self.exchanged) if one.to_broker)
            said.refused = {"code": header["code"], "field": header["field"]}

    def pass_time(self, seconds: float, done: Callable[[], bool] = lambda: False) -> None:
        """Waits, while those who are up PING; less if it is done."""
        self._collect()
        while seconds > 1e-9 and not done():
            passed = self.driver.wait(min(seconds, self._ping_in))
            seconds -= passed
            self._ping_in -= passed
            if self._ping_in <= 0:
                self._ping_in = self._ping_seconds
                self._ping()
            self._collect()

    def _ping(self) -> None:
        for name, peer in self.peers.items():
            if peer.up and not peer.mute:
                self.driver.send(name, [b"A1PING", peer.ping])

    def until(self, what: str, done: Callable[[], Any], step: Step) -> None:
        self.pass_time(max(self.driver.least_ms, step.get("within_ms", 0)) / 1000, lambda: bool(done()))
        assert done(), f"{what} did not come"

    # ---- patterns ----------------------------------------------------------------------------------------------------

    def check(self, wanted: Any, found: Any, path: str = "") -> str:
        """What does not fit, or an empty string."""
        if isinstance(wanted, dict) and next(iter(wanted), "").startswith("$"):
            return self._check_special(wanted, found, path)
        if isinstance(wanted, str) and wanted.startswith("$"):
            wanted = self.values[wanted[1:]]
        if isinstance(wanted, dict) and isinstance(found, dict):
            missing = [f"{path}.{name} is missing" for name in wanted if name not in found]
            wrong = (self.check(wanted[name], found[name], f"{path}.{name}") for name in wanted if name in found)
            return next(filter(None, [*missing, *wrong]), "")
        if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
            parts = enumerate(zip(wanted, found, strict=True))
            return next(filter(None, (self.check(a, b, f"{path}[{index}]") for index, (a, b) in parts)), "")
        same = wanted == found and isinstance(wanted, bool) == isinstance(found, bool)
        return "" if same else f"{path}: wanted {wanted!r}, found {found!r}"

    def _check_special(self, wanted: dict[str, Any], found: Any, path: str) -> str:
        kind, value = next(iter(wanted.items()))
        match kind:
            case "$set":
                self.values[value] = found
                fits = True
            case "$any":
                fits = True
            case "$least":
                fits = found >= value
            case "$most":
                fits = found <= value
            case "$not":
                fits = bool(self.check(value, found))
            case "$has":
                fits = any(not self.check(value, one) for one in found)
            case "$keys":
                fits = isinstance(found, dict) and sorted(found) == sorted(value)
            case _:
                raise AssertionError(f"{kind} is no pattern")
        return "" if fits else f"{path}: wanted {wanted}, found {found!r}"

    # ---- steps -------------------------------------------------------------------------------------------------------

    def hello(self, step: Step) -> None:
        name = step["hello"]
        header = _laid_over(WORLD["hello"][name.rstrip("0123456789")], step.get("header", {}))
        if number := name[len(name.rstrip("0123456789")) :]:
            own = {"slot": f"{name.rstrip('0123456789')}/{number}", "process": f"{name}-process", "producer": None}
            header = {**header, **own, **step.get("header", {})}
        self.open(name).producer = header.get("producer")
        self.say(name, "HELLO", header)
        self.get({"get": f"{name} WELCOME"})

    def join(self, step: Step) -> None:
        name = step["join"]
        identity = name.rstrip("0123456789")
        group = step.get("group", identity)
        topics = step.get("topics", WORLD["mesh"]["group"].get(group, {}).get("topics"))
        self.hello({"hello": name, "header": step.get("header", {})})
        self.say(name, "SUB", {"group": group, "topics": topics, "max_in_flight": step.get("max_in_flight", 100)})
        self.get({"get": f"{name} SUBOK", "header": {"group": group}})
        if credit := step.get("credit", 100):
            self.say(name, "CREDIT", {"group": group, "events": credit, "bytes": BYTES_MAX})

    def publish(self, step: Step) -> None:
        name = step["publish"]
        self.say(name, "PUB", {"producer": self.peers[name].producer, "first": step["first"]}, step["batch"])

    def send(self, step: Step) -> None:
        peer, _, command = step["send"].partition(" ")
        if peer in self.peers and command == "PING":
            self._collect()
            self.peers[peer].pongs = 0
            self.peers[peer].ping = _encoded(self._made(step["header"]))
        if command == "HELLO" and peer in self.peers:
            self.peers[peer].producer = step["header"].get("producer")
        if command:
            self.say(peer, command, step["header"], step.get("batch"))
        else:
            self.say_frames(peer, [_frame(frame) for frame in step["frames"]])

    def get(self, step: Step) -> None:
        name, _, command = step["get"].partition(" ")
        peer = self.peers[name]
        if command == "PONG":
            self.until("PONG", lambda: peer.pongs, step)
            return
        problem = ""

        def fits() -> bool:
            nonlocal problem
            while peer.others:
                found, header = peer.others[0]
                if found != "STATE" or command == "STATE":
                    assert found == command, f"wanted {command}, heard {found} {str(header)[:600]}"
                problem = self.check(step.get("header", {}), header) if found == command else "STATE"
                if not problem or not (step.get("until") or found != command):
                    return True
                peer.others.popleft()
            return False

        self.until(f"{command} {json.dumps(step.get('header', {}))} ({problem})", fits, step)
        peer.others.popleft()
        assert not problem, problem

    def acked(self, step: Step) -> None:
        peer = self.peers[step["acked"]]
        refused: list[Any] = []
        upto = -1

        def reached() -> bool:
            nonlocal upto
            while peer.acks and upto < step["upto"]:
                ack = peer.acks.popleft()
                upto = ack["upto"]
                refused.extend(ack["refused"])
            return bool(upto >= step["upto"])

        self.until(f"PUBACK upto {step['upto']}", reached, step)
        assert upto == step["upto"], f"PUBACK upto {upto}"
        assert not (problem := self.check(step.get("refused", []), refused, "refused")), problem

    def take(self, step: Step) -> None:
        peer = self.peers[step["take"]]
        count = len(step["messages"])
        self.until(f"{count} deliveries", lambda: len(peer.deliveries) >= count, step)
        taken, peer.deliveries = peer.deliveries[:count], peer.deliveries[count:]
        wanted = [{"attempt": 1, "name": one["id"], **one} for one in step["messages"]]
        for subject in {one["body"]["subject"] for one in taken}:
            came = [one["body"]["id"] for one in taken if one["body"]["subject"] == subject]
            asked = [one["id"] for one in wanted if one["id"] in came]
            assert asked == came, f"subject {subject}: {came} came, {asked} was asked"
        for one in wanted:
            self._take_one(one, taken, step.get("group", peer.identity))
        assert peer.lost == step.get("lost", 0), f"{peer.lost} were lost"
        peer.lost = 0

    def _take_one(self, wanted: dict[str, Any], taken: list[dict[str, Any]], group: str) -> None:
        found = next((one for one in taken if one["body"]["id"] == wanted["id"]), None)
        assert found is not None, f"{wanted['id']} is not among {[one['body']['id'] for one in taken]}"
        assert (found["attempt"], found["group"]) == (wanted["attempt"], group), found
        assert not (problem := self.check(wanted.get("body", {}), found["body"], "body")), problem
        name = wanted["name"]
        self.values[name] = [found["seq"], found["fence"]]
        self.values[f"{name}.seq"], self.values[f"{name}.fence"] = found["seq"], found["fence"]

    def silent(self, step: Step) -> None:
        peer = self.peers[step["silent"]]
        self.pass_time(max(self.driver.least_ms / 25, step.get("ms", 0)) / 1000)
        assert not peer.left(), "it should have heard nothing"

    def repeat(self, step: Step) -> None:
        for _ in range(step["repeat"]):
            for one in step["steps"]:
                _VERBS[next(iter(one))](self, one)

    def forget(self, step: Step) -> None:
        name, _, command = step["forget"].partition(" ")
        self._collect()
        peer = self.peers[name]
        peer.others = deque(message for message in peer.others if message[0] != command)

    def close(self, step: Step) -> None:
        self.driver.close(step["close"])
        self._forget(step["close"])

    def _forget(self, name: str) -> None:
        peer = self.peers.pop(name)
        assert not peer.left(), f"{name} heard what no step expected"

    def restart(self, step: Step) -> None:
        clean = step["restart"] == "stop"
        self.driver.restart(clean=clean)
        for name in [name for name, peer in self.peers.items() if clean and peer.up]:
            self.until(f"BYE of {name}", lambda name=name: self.peers[name].others, {})  # type: ignore[misc]
            self.get({"get": f"{name} BYE"})
        self.driver.start()
        for name in list(self.peers):
            self.close({"close": name})


_VERBS: Final[dict[str, Callable[[Run, Step], None]]] = {
    "hello": Run.hello,
    "join": Run.join,
    "publish": Run.publish,
    "send": Run.send,
    "get": Run.get,
    "acked": Run.acked,
    "take": Run.take,
    "silent": Run.silent,
    "pass_ms": lambda run, step: run.pass_time(step["pass_ms"] / 1000),
    "mute": lambda run, step: setattr(run.peers[step["mute"]], "mute", True),
    "speak": lambda run, step: setattr(run.peers[step["speak"]], "mute", False),
    "repeat": Run.repeat,
    "forget": Run.forget,
    "close": Run.close,
    "restart": Run.restart,
}


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Objects are merged field by field; anything else is replaced."""
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(name), dict)
        merged[name] = _laid_over(below[name], value) if both else value
    return merged


def _nested(levels: int) -> list[Any]:
    """`[[…]]` of so many levels."""
    made: list[Any] = []
    for _ in range(levels - 1):
        made = [made]
    return made


def _encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _frame(frame: Any) -> bytes:
    if isinstance(frame, str):
        return frame.encode()
    if "times" in frame:
        text, count = frame["times"]
        return str(text).encode() * int(count)
    return base64.b64decode(frame["base64"])


def _toml(mesh: dict[str, Any]) -> str:
    """Tables of one or two levels, which is what mesh.toml has; JSON's strings, numbers and lists are TOML's too."""
    lines = []
    for name, table in mesh.items():
        tables = {f"{name}.{key}": inner for key, inner in table.items() if isinstance(inner, dict)}
        for title, fields in (tables or {name: table}).items():
            lines.append(f"[{title}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
    return "\n".join(lines) + "\n"
