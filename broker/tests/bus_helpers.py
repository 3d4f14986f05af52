"""A small world for the tests: one mesh, events, and peers that say what a test means."""

from __future__ import annotations

from typing import Any

from atoll_broker.testing import MemoryBroker, Peer

PLACED = "shop.order.placed.v1"
CANCELLED = "shop.order.cancelled.v1"
CAPTURED = "bank.payment.captured.v1"
SCHEMA = {
    "type": "object",
    "required": ["n"],
    "properties": {
        "n": {"type": "integer"},
        "lines": {"type": "array", "items": {"properties": {"quantity": {"type": "integer", "minimum": 1}}}},
    },
}

MESH = f"""
[grant.shop]
publish = ["shop.*"]
announce = ["/shop"]
[grant.bank]
publish = ["bank.*"]
[grant.auth]
announce = ["/auth"]
public = true
put = ["keys", "revocations"]
[grant.gateway]
watch = ["registry", "keys", "revocations"]
[grant.control]
watch = ["registry"]
publish = ["shop.*"]
tap = ["*"]
admin = true
[group_defaults]
lease_seconds = 10
attempts_max = 3
backoff_seconds = [1, 4]
in_flight_max = 256
[group.bank]
part = "bank"
topics = ["{PLACED}", "{CANCELLED}"]
[group.mail]
part = "mail"
topics = ["{PLACED}"]
on_dead = "skip"
[group.shop]
part = "shop"
topics = ["{CAPTURED}"]
[bus]
heartbeat_seconds = 1.0
event_bytes_max = 4096
batch_events_max = 128
batch_bytes_max = 65536
"""


def event(n: int, subject: str = "o-1", topic: str = PLACED, **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"e-{n}",
        "source": "/shop",
        "type": topic,
        "subject": subject,
        "time": "2026-11-23T12:00:00Z",
        "datacontenttype": "application/json",
        "data": {"n": n, **data},
        "traceparent": f"00-{n:032x}-00f067aa0ba902b7-01",
    }


def hello(identity: str, number: int = 1, **header: Any) -> dict[str, Any]:
    topics = {"shop": [PLACED, CANCELLED], "bank": [CAPTURED]}.get(identity, [])
    return {
        "slot": f"{identity}/{number}",
        "process": f"{identity}-{number}",
        "contracts": {"publishes": dict.fromkeys(topics, SCHEMA), "consumes": []},
        **header,
    }


class Client:
    """A peer with a session, which remembers what it was sent."""

    def __init__(self, broker: MemoryBroker, identity: str, number: int = 1, **header: Any) -> None:
        self.broker = broker
        self.peer: Peer = broker.connect(identity)
        self.peer.say("HELLO", **hello(identity, number, **header))
        self.welcome = self.heard("WELCOME")[0]

    def heard(self, command: str | None = None) -> list[dict[str, Any]]:
        return self.peer.heard(command)

    def say(self, command: str, payload: object = None, **header: Any) -> list[dict[str, Any]]:
        """Says it, and returns what was answered at once."""
        self.peer.say(command, payload, **header)
        return self.heard()

    def ping_while(self, seconds: float) -> list[dict[str, Any]]:
        """Time passes, with a sign of life every half second; what came, but the PONGs."""
        heard: list[dict[str, Any]] = []
        while seconds > 0:
            step = min(0.5, seconds)
            self.broker.advance(step)
            seconds -= step
            if self.peer.open:
                heard += self.say("PING")
        return [message for message in heard if message["command"] != "PONG"]


class Shop(Client):
    """The publisher; counts its own pseq."""

    def __init__(self, broker: MemoryBroker, producer: str = "shop/box", **header: Any) -> None:
        super().__init__(broker, "shop", producer=producer, **header)
        self.producer = producer
        self.next = self.welcome["producer"]["mark"] + 1

    def publish(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        first, self.next = self.next, self.next + len(events)
        return self.send(first, *events)

    def send(self, first: int, *events: dict[str, Any]) -> list[dict[str, Any]]:
        return self.say("PUB", list(events), producer=self.producer, first=first)


class Consumer(Client):
    """A member of one group, with plenty of credit unless a test says otherwise."""

    def __init__(
        self,
        broker: MemoryBroker,
        group: str = "bank",
        number: int = 1,
        topics: tuple[str, ...] | None = None,
        credit: int = 1000,
        max_in_flight: int = 256,
        **header: Any,
    ) -> None:
        super().__init__(broker, broker.mesh.groups[group].part, number, **header)
        self.group = group
        self.inbox: list[dict[str, Any]] = []
        chosen = list(topics or broker.mesh.groups[group].topics)
        self.peer.say("SUB", group=group, topics=chosen, max_in_flight=max_in_flight)
        if credit:
            self.credit(credit)

    def credit(self, events: int, size: int = 1_000_000) -> None:
        self.peer.say("CREDIT", group=self.group, events=events, bytes=size)

    def take(self) -> list[dict[str, Any]]:
        """What was delivered since: dicts with seq, attempt, fence, event, n."""
        found = []
        for message in self.heard("MSG"):
            for (seq, attempt, _, fence), body in zip(message["messages"], message["events"], strict=True):
                found.append({"seq": seq, "attempt": attempt, "fence": fence, "event": body, "n": body["data"]["n"]})
        return found

    def ack(self, *deliveries: dict[str, Any]) -> list[dict[str, Any]]:
        """Acks, gives the credit back; what was answered."""
        self.credit(len(deliveries), 0)
        return self._verdict("ACK", "done", deliveries)

    def nack(self, *deliveries: dict[str, Any], **header: Any) -> list[dict[str, Any]]:
        return self._verdict("NACK", "messages", deliveries, **header)

    def term(self, *deliveries: dict[str, Any], **header: Any) -> list[dict[str, Any]]:
        return self._verdict("TERM", "messages", deliveries, **header)

    def wip(self, *deliveries: dict[str, Any]) -> list[dict[str, Any]]:
        return self._verdict("WIP", "messages", deliveries)

    def wait(self, seconds: float) -> list[dict[str, Any]]:
        """Time passes with signs of life; deliveries that came."""
        found = []
        while seconds > 0:
            self.broker.advance(min(0.5, seconds))
            seconds -= 0.5
            self.peer.say("PING")
            found += self.take()
        return found

    def _verdict(
        self, command: str, field: str, deliveries: tuple[dict[str, Any], ...], **header: Any
    ) -> list[dict[str, Any]]:
        pairs = [[delivery["seq"], delivery["fence"]] for delivery in deliveries]
        self.peer.say(command, group=self.group, **{field: pairs}, **header)
        answers = []
        for frames in self.peer.frames():
            if frames[0] == b"A1STALE":
                answers.append({"command": "STALE", "frames": frames})
            else:
                self.peer.receive(frames)
        return answers


class Operator(Client):
    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker, "control")

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        self.say("PING")
        answers = self.say("ADMIN", request="r", verb=verb, **arguments)
        if not answers:  # some are answered after the next commit
            self.broker.advance(0.1)
            answers = self.heard()
        return answers[-1]

    def steps(self, event_id: str, group: str = "bank") -> list[str]:
        """What happened to an event in a group, in order."""
        return [step["what"] for step in self.ask("why", event_id=event_id)["steps"] if step["group"] == group]

    def alarm_names(self) -> set[str]:
        return {alarm["name"] for alarm in self.ask("alarms")["alarms"]}

    def group(self, name: str = "bank") -> dict[str, Any]:
        found: dict[str, Any] = self.ask("groups")["groups"][name]
        return found


def numbers(deliveries: list[dict[str, Any]]) -> list[int]:
    return [delivery["n"] for delivery in deliveries]
