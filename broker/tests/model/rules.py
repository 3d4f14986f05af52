"""What may happen next. One set of rules; who chooses among them is given: hypothesis, or a seeded generator.

Clients here are worse than real ones: they name any event under any fence, publish out of order, go on talking after
the end of their session, fall silent, come twice. What ZeroMQ can not do is not done either: a socket's frames keep
their order, and what is lost is lost with its socket. Commands of different sessions come in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec
from bus_helpers import CANCELLED, CAPTURED, PLACED, event

from atoll_broker.testing import Peer

from .groups import Group
from .outboxes import Event
from .reference import Reference
from .words import BATCH_EVENTS_MAX, CONTRACTS, ENDPOINTS, GROUPS, IN_FLIGHT_MAX, LEASE, SUBJECTS, TAP_EVENTS_MAX
from .world import RUBBISH, World

T = TypeVar("T")

#: Who there can be: slot, its producer. Three of bank, so that the bound of two sessions an identity is met.
SLOTS: Final[dict[str, str | None]] = {
    "shop/1": "shop/box",
    "shop/2": "shop/two",
    "bank/1": None,
    "bank/2": "bank/box",
    "bank/3": None,
    "mail/1": None,
    "mail/2": None,
    "auth/1": None,
    "gateway/1": None,
    "control/1": None,
}
CONSUMERS: Final = {"bank": "bank", "mail": "mail"}
VERDICTS: Final = ("ACK", "ACK duplicate", "NACK", "NACK with a delay", "TERM", "WIP")
CLAIMS: Final = ("of its lease", "with a stale fence", "of another session")
CHAIN_MAX: Final = 24
FAULTS: Final = ("delay", "drop", "duplicate", "error")
HELLOS: Final = ("resumed", "the same process says HELLO again", "another process says HELLO")
ENDS: Final = ("BYE", "cut", "key revoked", *HELLOS)


class Chooser(Protocol):
    """Where the choices come from."""

    def pick(self, options: Sequence[T]) -> T: ...


class Rules:
    def __init__(self, world: World, chooser: Chooser) -> None:
        self.world = world
        self.pick = chooser.pick
        self.peers: dict[str, Peer] = {}  # the newest socket of each slot
        self.ended: list[Peer] = []  # sockets whose session has ended, and that can still speak
        self.process: dict[str, str] = {}
        self.sent: dict[str, dict[int, Event]] = {}  # by producer and pseq
        self.count = 0
        self.requests = 0

    @property
    def reference(self) -> Reference:
        return self.world.reference

    def chance(self, one_in: int) -> bool:
        return self.pick(range(one_in)) == one_in - 1

    # ---- sessions ----------------------------------------------------------------------------------------------------

    def tend(self, slot: str | None = None) -> None:
        """What a client that means well does next: HELLO, SUB, CREDIT, PING."""
        slot = slot or self.pick(tuple(SLOTS))
        peer = self.peers.get(slot)
        if peer is None or not peer.open or peer.route not in self.reference.sessions:
            self.hello(slot)
            return
        identity = slot.split("/")[0]
        session = self.reference.sessions[peer.route]
        if identity in CONSUMERS and identity not in session.members:
            self.subscribe(peer, identity)
        elif identity in CONSUMERS and session.members[identity].room == 0 and not session.members[identity].draining:
            self.say(peer, "CREDIT", group=identity, events=self.pick((1, 3, 6)), bytes=self.pick((1, 4000, 4000)))
        elif identity in ("gateway", "control") and not session.watches:
            self.say(
                peer,
                "WATCH",
                kind="registry" if identity == "control" else self.pick(("registry", "keys", "revocations")),
            )
        elif identity in CONSUMERS and self.chance(2):
            self.say(peer, "CREDIT", group=identity, events=2, bytes=2000)
        else:
            self.say(peer, "PING", ready=self.pick((True, True, True, False)), why=self.pick(("", "", "busy")))

    def let_flow(self) -> None:
        """A group gets two members that can take what there is, and its operator what is dead back."""
        part = self.pick(("bank", "mail"))
        for slot in (f"{part}/1", f"{part}/2"):
            peer = self.open_peer(slot)
            if (
                peer is None
                or not (session := self.session_of(peer))
                or ((m := session.members.get(part)) and m.draining)
            ):
                self.hello(slot)
                peer = self.peers[slot]
            if self.session_of(peer) and part not in self.session_of(peer).members:
                self.say(
                    peer,
                    "SUB",
                    group=part,
                    topics=list(GROUPS[part][1]),
                    max_in_flight=self.pick((1, 2, IN_FLIGHT_MAX)),
                )
            if self.session_of(peer):
                self.say(peer, "CREDIT", group=part, events=4, bytes=8000)

    def replay_dead(self) -> None:
        """An operator releases a key that is dead."""
        dead = [
            (name, self.reference.groups[name].items[seq].subject)
            for name in GROUPS
            for seq in self.reference.groups[name].letters
        ]
        peer = self.open_peer("control/1")
        if not dead or peer is None or not self.session_of(peer):
            self.tend("control/1")
            return
        self.ask_replay(peer, *self.pick(dead))

    def hello(self, slot: str, how: str = "", **changes: Any) -> None:
        """A new socket for that slot: of the same process, which resumes its session or does not, or of another."""
        how = how or self.pick(HELLOS)
        old = self.peers.get(slot)
        session = self.session_of(old)
        if old is not None:
            self.world.count_end(old, how)
            self.keep_ended(old)
        if how == "another process says HELLO" or slot not in self.process:
            self.count += 1
            self.process[slot] = f"p-{self.count}"
        self.peers[slot] = peer = self.world.connect(slot.split("/")[0])
        self.say_hello(peer, slot, resume=session.id if session is not None and how == "resumed" else None, **changes)

    def say_hello(self, peer: Peer, slot: str, /, **changes: Any) -> None:
        identity = slot.split("/")[0]
        header: dict[str, Any] = {"slot": slot, "process": self.process.get(slot, "p"), "resume": None}
        header["producer"] = SLOTS.get(slot)
        header["contracts"] = CONTRACTS.get(identity, {"publishes": {}, "consumes": []})
        if identity in ENDPOINTS:
            header["endpoints"] = ENDPOINTS[identity]
        self.world.say(peer, "HELLO", {**header, **changes})

    def odd_hello(self) -> None:
        """HELLO twice, on a socket that had a session, for what belongs to another, or with less announced."""
        slot = self.pick(tuple(SLOTS))
        kind = self.pick(
            ("twice", "again", "foreign slot", "foreign producer", "foreign topic", "foreign prefix", "less")
        )
        if kind == "twice" and (peer := self.open_peer(slot)) is not None:
            self.say_hello(peer, slot)
        elif kind == "again" and (ended := [peer for peer in self.ended if peer.open]):
            peer = self.pick(ended)
            self.say_hello(peer, f"{peer.identity}/1")
        elif kind == "less":
            topics = self.pick(((), (PLACED,))) if slot.startswith("shop") else ()
            publishes = {topic: CONTRACTS["shop"]["publishes"][topic] for topic in topics}
            self.hello(slot, contracts={"publishes": publishes, "consumes": []})
        elif kind.startswith("foreign"):
            self.say_hello(self.world.connect(slot.split("/")[0]), slot, **_foreign(kind))

    def open_peer(self, slot: str) -> Peer | None:
        peer = self.peers.get(slot)
        return peer if peer is not None and peer.open else None

    def open_peers(self) -> list[Peer]:
        return [peer for peer in self.peers.values() if peer.open]

    def leave(self) -> None:
        """BYE, an end without a word, HELLO again, the key taken away: of who holds what has seldom met that end."""
        if not (peers := self.open_peers()):
            return
        drawn = [(self.pick(peers), self.pick(ENDS)) for _ in range(4)]
        peer, how = min(drawn, key=lambda one: self._reached_by_end(*one))
        slot = next(slot for slot, one in self.peers.items() if one is peer)
        if how == "cut":
            self.world.count_end(peer, how)
            self.world.cut(peer)
        elif how == "BYE":
            self.world.count_end(peer, how)
            self.say(peer, "BYE", reason="")
            self.keep_ended(peer)
        elif how == "key revoked":
            self.world.revoke(peer.identity)
        else:
            self.hello(slot, how)

    def _reached_by_end(self, peer: Peer, how: str) -> int:
        """How often the rarest state of what it holds has met that end; with nothing in hand it matters least."""
        states = {self.reference.groups[name].state_of(seq) for name, seq, _ in self.world.held_by(peer)}
        return min((self.world.reached["event", state, how] for state in states), default=1_000_000)

    def keep_ended(self, peer: Peer) -> None:
        """Its session is over, but its socket can still speak."""
        if peer.open:
            self.ended.append(peer)
            del self.ended[:-4]

    def another_key(self) -> None:
        """A routing id that comes again belongs to nobody's session."""
        if not (peers := self.open_peers()):
            return
        peer = self.pick(peers)
        self.world.count_end(peer, "cut")
        for slot in [slot for slot, one in self.peers.items() if one is peer]:
            del self.peers[slot]
        self.world.another_key(peer, "gateway" if peer.identity != "gateway" else "mail")

    def say(self, peer: Peer, command: str, **header: Any) -> None:
        self.world.say(peer, command, header)

    # ---- anybody says anything ---------------------------------------------------------------------------------------

    def speak(self) -> None:
        """Any command on any socket: of a session that is alive, suspect or over, or that never was."""
        sockets = [*self.open_peers(), *[peer for peer in self.ended if peer.open], None]
        suspects = [peer for peer in self.open_peers() if self.world.session_state(peer) == "suspect"]
        peer = self.pick(suspects if suspects and self.chance(2) else sockets) or self.world.connect(
            self.pick(("shop", "bank", "mail", "control"))
        )
        command = self.rarest("session", self.world.session_state(peer), COMMANDS)
        if command.startswith("rubbish: "):
            self.world.say_rubbish(peer, command.removeprefix("rubbish: "))
        elif command == "HELLO":
            self.say_hello(peer, f"{peer.identity}/1")
        elif command == "PUB":
            self.world.say(peer, "PUB", {"producer": f"{peer.identity}/box", "first": 1}, [self.event(peer.identity)])
        elif command == "PUT":
            self.put(peer)
        elif command == "ADMIN":
            self.admin(peer)
        else:
            self.world.say(peer, command, self.any_header(command))

    def any_header(self, command: str) -> dict[str, Any]:
        group = self.pick(("bank", "mail", "nobody"))
        pairs = [[self.pick((1, 3, 999)), (self.reference.boot << 32) + 1]]
        headers: dict[str, dict[str, Any]] = {
            "SUB": {"group": group, "topics": [self.pick((PLACED, CAPTURED))], "max_in_flight": 3},
            "CREDIT": {"group": group, "events": 1, "bytes": 100},
            "ACK": {"group": group, "done": pairs},
            "NACK": {"group": group, "messages": pairs},
            "TERM": {"group": group, "messages": pairs},
            "WIP": {"group": group, "messages": pairs},
            "DRAIN": {"group": group},
            "TAP": {"tap": "~x", "topics": [self.pick((PLACED, "other.*"))]},
            "WATCH": {"kind": self.pick(("registry", "keys", "revocations"))},
            "PING": {},
            "BYE": {"reason": "so"},
        }
        return headers[command]

    def rarest(self, table: str, state: str, commands: Sequence[str]) -> str:
        """Of three drawn the one that was done least in this state: so that the rare comes too."""
        drawn = [self.pick(commands) for _ in range(3)]
        return min(drawn, key=lambda command: self.world.reached[table, state, command])

    # ---- publishers --------------------------------------------------------------------------------------------------

    def event(self, identity: str, flaw: str = "") -> Event:
        """Now and then of a topic that its session did not announce."""
        self.count += 1
        topic = self.pick((PLACED, PLACED, CANCELLED) if identity == "shop" else (CAPTURED, CAPTURED, PLACED))
        subject = self.pick(SUBJECTS)
        made = event(self.count, subject, topic) | {"source": f"/{identity}"}
        if size := self.pick((0, 0, 0, 300)):
            made["data"]["pad"] = "x" * size
        if flaw == "large":
            made["data"]["pad"] = "x" * 1100
        elif flaw == "envelope":
            del made["subject"]
        elif flaw == "source":
            made["source"] = self.pick(("/auth", f"/{identity}ping", identity))
        elif flaw == "data":
            made["data"] = {}
        return Event(msgspec.json.encode(made), topic, subject, made["id"], flaw)

    def publish(self) -> None:
        """From the next pseq, from before it, across it, or from too far ahead; now and then with events to refuse."""
        peers = [peer for peer in self.open_peers() if (session := self.session_of(peer)) and session.producer]
        if not peers:
            self.tend(self.pick(("shop/1", "shop/2")))
            return
        peer = self.pick(peers)
        producer: str = self.session_of(peer).producer
        state, following = self.producer_state(producer), self.reference.outboxes[producer].next
        kind = self.rarest("producer", state, PUBLISHES)
        if kind == "of another":
            producer = "shop/two" if producer == "shop/box" else "shop/box"
        first = {
            "behind": max(1, following - 2),
            "across": max(1, following - 1),
            "ahead": following + self.pick((1, 2)),
        }.get(kind, following)
        self._publish(peer, producer, kind, state, first, following)

    def _publish(self, peer: Peer, producer: str, kind: str, state: str, first: int, following: int) -> None:
        known = self.sent.setdefault(producer, {})
        count = {
            "behind": max(1, min(2, following - first)),
            "across": self.pick((2, 3, 4)),
            "too many": BATCH_EVENTS_MAX + 1,
            "none": 0,
        }.get(kind, self.pick((1, 1, 2, 3, 4) if not state.startswith("commit") else (1, 2, 4)))
        batch = []
        for pseq in range(first, first + count):
            if pseq >= following or pseq not in known:
                flawed = kind == "with a refusal" and (pseq == following or self.chance(2))
                flaw = self.pick(("large", "envelope", "source", "data")) if flawed else ""
                known[pseq] = self.event(peer.identity, flaw)
            batch.append(known[pseq])
        fresh = batch[following - first :]
        busy = (
            kind in ("next", "across")
            and bool(fresh)
            and self.reference.is_busy(self.reference.outboxes[producer], fresh)
        )
        self.world.reached["producer", state, f"{kind}, BUSY" if busy else kind] += 1
        self.world.say(peer, "PUB", {"producer": producer, "first": first}, batch)

    def producer_state(self, producer: str) -> str:
        """A producer's row in the coverage table."""
        outbox, commit = self.reference.outboxes[producer], self.reference.commit
        if not outbox.pending:
            return "on disk" if outbox.kept.mark else "nothing yet"
        coming = commit.disk.marks.get(producer, outbox.kept) if commit is not None else outbox.kept
        if coming == outbox.kept:
            return "taken"
        return "committing" if coming == outbox.taken else "committing, and more taken"

    def session_of(self, peer: Peer | None) -> Any:
        return self.reference.sessions.get(peer.route) if peer is not None else None

    # ---- consumers ---------------------------------------------------------------------------------------------------

    def subscribe(self, peer: Peer, name: str) -> None:
        topics = GROUPS[name][1]
        chosen = list(topics) if len(topics) == 1 or not self.chance(4) else [self.pick(topics)]
        self.say(peer, "SUB", group=name, topics=chosen, max_in_flight=self.pick((1, 2, 3, IN_FLIGHT_MAX + 4)))

    def member_acts(self) -> None:
        """SUB again, CREDIT, DRAIN in whatever state the member is."""
        members = [member for group in self.reference.groups.values() for member in group.members.values()]
        members = [member for member in members if self.world.shell.is_open(member.session.route)]
        if not members:
            self.tend(self.pick(("bank/1", "bank/2", "mail/1", "mail/2")))
            return
        drawn = [self.pick(members) for _ in range(3)]
        member = min(drawn, key=lambda one: self.world.reached["member", one.state, "CREDIT"])
        name = member.session.identity
        peer = self.peer_at(member.session.route)
        command = self.rarest("member", member.state, MEMBER_ACTS)
        self.world.reached["member", member.state, command] += 1
        if command == "SUB again":
            self.subscribe(peer, name)
        elif command == "SUB for one topic":
            self.say(peer, "SUB", group=name, topics=[self.pick(GROUPS[name][1])], max_in_flight=2)
        elif command == "SUB for a topic that is not the group's":
            self.say(peer, "SUB", group=name, topics=[CAPTURED], max_in_flight=2)
        elif command == "CREDIT":
            self.say(peer, "CREDIT", group=name, events=self.pick((1, 2, 5)), bytes=self.pick((0, 300, 4000)))
        elif command == "DRAIN":
            self.say(peer, "DRAIN", group=name)
        else:
            self.world.count_end(peer, "BYE")
            self.say(peer, "BYE", reason="")
            self.keep_ended(peer)

    def answer(self) -> None:
        """A member that works: it finishes what it has, mostly."""
        holders = [peer for peer in self.open_peers() if self.world.held_by(peer)]
        if not holders:
            self.member_acts()
            return
        peer = self.pick(holders)
        name, seq, _ = self.pick(self.world.held_by(peer))
        self.judge(
            peer, name, seq, self.pick(("ACK", "ACK", "ACK duplicate", "NACK", "NACK with a delay", "TERM")), CLAIMS[0]
        )

    def finish_all(self) -> None:
        """One ACK for everything that a member has, or an ACK with stale ones among it."""
        holders = [peer for peer in self.open_peers() if self.world.held_by(peer)]
        if holders:
            peer = self.pick(holders)
            held = self.world.held_by(peer)
            name = held[0][0]
            pairs = [[seq, fence] for _, seq, fence in held]
            for _, seq, _ in held:
                self.world.reached["event", self.reference.groups[name].state_of(seq), f"ACK {CLAIMS[0]}"] += 1
            if self.chance(3):
                pairs.append([seq, fence - 1] if (seq := held[0][1]) and (fence := held[0][2]) else [1, 1])
            self.say(peer, "ACK", group=name, done=pairs)

    def judge_anything(self) -> None:
        """Any verdict on any event: leased or not, by its holder or by another, under its fence or an older one."""
        group = self.reference.groups[self.pick(("bank", "bank", "mail"))]
        members = [peer for peer in self.open_peers() if peer.route in group.members]
        if not members:
            self.bring_another(group)
            return
        by_state: dict[str, list[int]] = {"no such event": [self.reference.log.next + 5]}
        for seq in group.items:
            by_state.setdefault(group.state_of(seq), []).append(seq)
        self._judge_rarest(group, by_state, members)

    def judge_what_is_rare(self) -> None:
        """The same, of events in the states that do not come or do not last by themselves."""
        for group in self.reference.groups.values():
            members = [peer for peer in self.open_peers() if peer.route in group.members]
            by_state: dict[str, list[int]] = {}
            for seq in group.leases:
                if (state := group.state_of(seq)) != "leased":
                    by_state.setdefault(state, []).append(seq)
            if by_state and members:
                self._judge_rarest(group, by_state, members)
            elif by_state:
                self.bring_another(group)

    def _judge_rarest(self, group: Group, by_state: dict[str, list[int]], members: Sequence[Peer]) -> None:
        drawn = [self._draw_verdict(group, by_state, members) for _ in range(8)]
        reached = self.world.reached
        _, _, peer, seq, verdict, claim = min((reached["event", d[0], d[1]], n, *d[2:]) for n, d in enumerate(drawn))
        self.judge(self.peer_at(peer), group.name, seq, verdict, claim)

    def bring_another(self, group: Group) -> None:
        """A member of a slot for which nothing is held, so that what is held can be seen to be."""
        held = {item.slot for item in group.leases.values()}
        slots = [slot for slot in SLOTS if slot.startswith(group.part) and slot not in held]
        slot = self.pick(slots or list(SLOTS))
        self.tend(slot)
        self.tend(slot)

    def _draw_verdict(
        self, group: Group, by_state: dict[str, list[int]], members: Sequence[Peer]
    ) -> tuple[str, str, bytes, int, str, str]:
        """(state, command, who says it, of which event, verdict, claim)."""
        state = self.pick(tuple(by_state))
        seq, verdict = self.pick(by_state[state]), self.pick(VERDICTS)
        item = group.items.get(seq)
        holder = item.member.session.route if item is not None and item.member is not None else b""
        holders = [peer.route for peer in members if peer.route == holder]
        others = [peer.route for peer in members if peer.route != holder]
        claims = [*(CLAIMS[:1] if holders else ()), CLAIMS[1], *(CLAIMS[2:] if others else ())]
        claim = self.pick(claims)
        route = self.pick(others if claim == CLAIMS[2] or not holders else holders)
        return state, f"{verdict} {claim}", route, seq, verdict, claim

    def peer_at(self, route: bytes) -> Peer:
        return next(peer for peer in [*self.peers.values(), *self.ended] if peer.route == route)

    def judge(self, peer: Peer, name: str, seq: int, verdict: str, claim: str) -> None:
        group = self.reference.groups[name]
        item = group.items.get(seq)
        fence = item.fence if item is not None and item.fence > 0 else (self.reference.boot << 32) + 7
        if claim == CLAIMS[1] and item is not None and item.member is not None:
            fence -= 1
        self.world.reached["event", group.state_of(seq), f"{verdict} {claim}"] += 1
        pairs = [[seq, fence]]
        match verdict:
            case "ACK":
                self.say(peer, "ACK", group=name, done=pairs)
            case "ACK duplicate":
                self.say(peer, "ACK", group=name, duplicate=pairs)
            case "NACK":
                self.say(peer, "NACK", group=name, messages=pairs, error="no")
            case "NACK with a delay":
                self.say(peer, "NACK", group=name, messages=pairs, delay_ms=self.pick((0, 0, 250, 3000)))
            case "TERM":
                self.say(peer, "TERM", group=name, messages=pairs, reason="never", error=self.pick(("", "bad")))
            case _:
                self.say(peer, "WIP", group=name, messages=pairs)

    def hold_on(self) -> None:
        """A handler that takes long: WIP after WIP, to the cap and past it."""
        holders = [peer for peer in self.open_peers() if self.world.held_by(peer)]
        if not holders:
            return
        peer = self.pick(holders)
        name, seq, fence = self.pick(self.world.held_by(peer))
        for _ in range(self.pick((3, CHAIN_MAX))):
            self.judge(
                peer, name, seq, "WIP", CLAIMS[0] if (name, seq, fence) in self.world.held_by(peer) else CLAIMS[1]
            )
            if self.chance(2):
                self.everybody_lives()
            for _ in range(int(LEASE / 0.5)):
                self.world.pass_time(0.25)

    # ---- states and operators ----------------------------------------------------------------------------------------

    def steer(self) -> None:
        """The operator, the gateway and auth do what they are there for."""
        slot = self.pick(("control/1", "control/1", "gateway/1", "auth/1"))
        peer = self.open_peer(slot)
        if peer is None or not self.session_of(peer):
            self.tend(slot)
        elif slot == "control/1":
            self.admin(peer)
        elif slot == "auth/1":
            self.put(peer)
        else:
            self.say(peer, "WATCH", kind=self.pick(("registry", "keys", "revocations")))

    def tap(self) -> None:
        """A look at the log, from now on or from some seq on; with credit or without, for long or for a moment."""
        peer = self.open_peer("control/1")
        if peer is None or not (session := self.session_of(peer)):
            self.tend("control/1")
            return
        name = self.pick(("~a", "~b", *(("~" + "abcdefghij"[self.pick(range(10))],) if self.chance(2) else ())))
        able = [one for one, tap in session.taps.items() if tap.state == "with credit"]
        name = self.pick(able if able and self.chance(2) else (*session.taps, name))
        tap = session.taps.get(name)
        few = tap is not None and len(tap.unsent(self.reference.topics)) <= TAP_EVENTS_MAX
        if few and tap.state == "without credit" and not self.chance(8):
            return  # a slow reader: only so does its buffer run over
        how = self.rarest(
            "tap", tap.state if tap is not None else "none", ("TAP", "TAP with history", "TAP ends", "CREDIT")
        )
        self.world.count_tap(peer, name, how)
        if how == "CREDIT":
            self.say(peer, "CREDIT", group=name, events=self.pick((3, 20, 20)), bytes=self.pick((1, 40_000, 40_000)))
        else:
            topics = [] if how == "TAP ends" else [self.pick((PLACED, "shop.*", "bank.*"))]
            after = {"after": self.pick((0, 5, self.reference.log.last))} if how == "TAP with history" else {}
            self.say(peer, "TAP", tap=name, topics=topics, **after)

    def harm(self) -> None:
        """A fault for the messages of a group, for a while; or the end of all of them."""
        peer = self.open_peer("control/1")
        if peer is None or not self.session_of(peer):
            self.tend("control/1")
            return
        self.requests += 1
        verb = self.pick(("fault.put", "fault.put", "fault.list", "fault.stop"))
        more: dict[str, Any] = {}
        if verb == "fault.put":
            kind = self.pick(FAULTS)
            more = {"group": self.pick(tuple(GROUPS)), "kind": kind, "seconds": self.pick((0.5, 4.0)), "delay_ms": 500}
            if self.chance(3):
                more["topic"] = PLACED
            more = {"fault": more}
        self.say(peer, "ADMIN", request=f"q-{self.requests}", verb=verb, **more)

    def put(self, peer: Peer) -> None:
        self.requests += 1
        kind = self.pick(("keys", "revocations"))
        self.say(peer, "PUT", kind=kind, value={"n": self.requests}, request=f"q-{self.requests}")

    def admin(self, peer: Peer) -> None:
        self.requests += 1
        request = f"q-{self.requests}"
        commands = [f"ADMIN {verb}" for verb in VERBS]
        verb = self.rarest("steering", self.world.session_state(peer), commands).removeprefix("ADMIN ")
        group = self.pick(tuple(GROUPS))
        more: dict[str, Any] = {}
        if verb == "dlq.replay":
            dead = sorted({one.subject for one in self.reference.groups[group].items.values() if one.state == "dead"})
            self.ask_replay(peer, group, self.pick((*dead, self.pick(SUBJECTS))))
            return
        if verb == "replay":
            self.ask_range(peer, group)
            return
        if verb == "group.detach":
            self.detach(peer, group)
            return
        if verb == "dlq.list":
            more = {"group": group, "after": 0, "limit": self.pick((2, 100))}
        self.say(peer, "ADMIN", request=request, verb=verb, **more)

    def ask_range(self, peer: Peer, name: str, start: int | None = None) -> None:
        """A replay of a range of the log; one at a time."""
        if any(question.commits_max > 1 for question in self.reference.questions.values()):
            return
        group = self.reference.groups[name]
        drawn = [self.pick((1, *group.items))] if self.chance(4) else [1, *group.items]
        reached = self.world.reached
        first = start or min(drawn, key=lambda seq: reached["event", group.state_of(seq), "replay of a range"])
        last = first + self.pick((0, 0, 3, 30))
        header: dict[str, Any] = {"first": first, "last": last, "dry_run": self.chance(4)}
        if self.chance(2):
            header["subject"] = self.pick(SUBJECTS)
        for seq, item in group.items.items():
            if first <= seq <= last and not header["dry_run"] and header.get("subject") in (None, item.subject):
                self.world.reached["event", group.state_of(seq), "replay of a range"] += 1
        self.say(peer, "ADMIN", request=f"q-{self.requests}", verb="replay", group=name, **header)

    def again(self) -> None:
        """An operator has a range of the log replayed, mostly around what is rare."""
        peer = self.open_peer("control/1")
        if peer is None or not self.session_of(peer):
            self.tend("control/1")
            return
        self.requests += 1
        self.ask_range(peer, self.pick(tuple(GROUPS)))

    def again_at_once(self, group: Group) -> None:
        """After a boot, of what is held for a slot."""
        self.tend("control/1")
        peer = self.peers["control/1"]
        self.requests += 1
        if self.session_of(peer):
            self.ask_range(peer, group.name, self.pick(list(group.leases) or [1]))

    def detach(self, peer: Peer, name: str) -> None:
        """Of a group that has no members, if it can be helped."""
        group = self.reference.groups[name]
        replaying = group.letters or any(item.replay for item in group.items.values())
        if replaying and not self.chance(12):  # it ends them all, and they are hard to come by
            return
        members = [one for one in self.open_peers() if one.route in self.reference.groups[name].members]
        if members and self.chance(2):
            for member in members:
                self.world.count_end(member, "BYE")
                self.say(member, "BYE", reason="")
                self.keep_ended(member)
        if not self.reference.groups[name].members:
            for seq in self.reference.groups[name].items:
                self.world.reached["event", self.reference.groups[name].state_of(seq), "group.detach"] += 1
        self.say(peer, "ADMIN", request=f"q-{self.requests}", verb="group.detach", group=name)

    def part_ways(self) -> None:
        """Groups are detached for so long that retention passes them, and one comes back to its gap."""
        peer = self.open_peer("control/1")
        if peer is None or not self.session_of(peer):
            self.tend("control/1")
            return
        for name in GROUPS:
            for member in [one for one in self.open_peers() if one.route in self.reference.groups[name].members]:
                self.say(member, "BYE", reason="")
                self.keep_ended(member)
            self.requests += 1
            self.detach(peer, name)
        self.world.pass_time(60.0)
        for _ in range(self.pick((1, 6))):
            self.world.pass_time(0.25)
        self.let_flow()

    def ask_replay(self, peer: Peer, name: str, subject: str) -> None:
        self.requests += 1
        for seq in self.reference.groups[name].dead_of(subject):
            self.world.reached["event", self.reference.groups[name].state_of(seq), "dlq.replay"] += 1
        choice: dict[str, Any] = {"subject": subject}
        if letters := list(self.reference.groups[name].letters):
            seq = self.pick(letters)
            odd = ({"seq": seq}, {"first": seq, "last": seq + 6}, {"subject": subject, "dry_run": True})
            choice = self.pick((choice, choice, choice, *odd))
        self.say(peer, "ADMIN", request=f"q-{self.requests}", verb="dlq.replay", group=name, **choice)

    # ---- time and the disk -------------------------------------------------------------------------------------------

    def everybody_lives(self) -> None:
        """A sign of life of whoever has been silent for a while."""
        for peer in self.open_peers():
            if (session := self.session_of(peer)) and self.reference.now - session.last_seen >= 1.0:
                self.say(peer, "PING")

    def time_passes(self) -> None:
        """A little or a lot; with signs of life, or without from some."""
        seconds = self.pick((0.0625, 0.25, 0.5, 1.0, 2.0))
        talking = self.pick((True, True, False))
        while seconds > 0:
            if talking and seconds in (1.0, 2.0):
                self.everybody_lives()
            self.world.pass_time(min(seconds, 0.25))
            seconds -= 0.25

    def silence(self) -> None:
        """One falls silent until it is suspect, or for longer; the others go on."""
        if not (peers := [peer for peer in self.open_peers() if self.session_of(peer)]):
            return
        silent = self.pick(peers)
        if (control := self.open_peer("control/1")) in peers and self.pick((True, True, False)):
            silent = control or silent
        for _ in range(self.pick((9, 10, 10 if silent is control else 22))):
            for peer in self.open_peers() if self.chance(3) else ():
                if peer is not silent and self.session_of(peer):
                    self.say(peer, "PING")
            self.world.pass_time(0.25)
        if silent.open and self.world.session_state(silent) == "suspect" and silent.identity == "control":
            self.wake(silent)

    def wake(self, control: Peer) -> None:
        """The first word of an operator who was suspect."""
        how = self.pick(("admin", "admin", "put", "harm"))
        if how == "harm":
            self.harm()
        else:
            (self.admin if how == "admin" else self.put)(control)

    def stopped(self) -> None:
        """The broker is stopped for a while, and goes on: nobody was silent meanwhile."""
        self.world.pass_time(self.pick((5.0, 60.0)))

    def disk(self) -> None:
        """Slow, fast, full, done with what it was doing."""
        if self.pick(range(8 if not self.world.shell.full else 2)) == 0:
            self.world.set_full(not self.world.shell.full)
        elif self.world.shell.begun is not None and self.pick((True, True, False)):
            self.world.finish_commit()
        else:
            self.world.set_slow(not self.world.shell.slow)

    def broker_ends(self) -> None:
        how = self.pick(("crash", "flushed", "stop", "stop"))
        if how == "stop":
            self.world.stop()
        else:
            self.world.crash(flushed=how == "flushed")
        self.peers.clear()
        self.ended.clear()
        for group in self.reference.groups.values():
            if group.leases:  # held for slots that are not back yet
                self.pick((self.bring_another, self.again_at_once))(group)
        if self.pick((True, False)):
            self.world.set_slow(False)
            self.world.set_full(False)


def _foreign(kind: str) -> dict[str, Any]:
    schema = CONTRACTS["shop"]["publishes"][PLACED]
    odd: dict[str, dict[str, Any]] = {
        "foreign slot": {"slot": "nobody/1"},
        "foreign producer": {"producer": "nobody/box"},
        "foreign topic": {"contracts": {"publishes": {"other.thing.done.v1": schema}, "consumes": []}},
        "foreign prefix": {"endpoints": {"url": "http://x", "prefixes": ["/other"], "routes": []}},
    }
    return odd[kind]


COMMANDS: Final = (
    "HELLO", "PUB", "SUB", "TAP", "CREDIT", "ACK", "NACK", "TERM", "WIP", "WATCH", "PUT", "ADMIN", "PING", "DRAIN",
    "BYE", *(f"rubbish: {code}" for code in RUBBISH),
)  # fmt: skip
PUBLISHES: Final = (
    "next", "next", "next", "next", "behind", "across", "ahead", "of another", "with a refusal", "too many", "none",
)  # fmt: skip
VERBS: Final = (
    "groups", "topics", "sessions", "alarms", "replays", "x", "dlq.list", "dlq.list", "dlq.replay", "dlq.replay",
    "replay", "replay", "group.detach",
)  # fmt: skip
STEERING: Final = (
    "PUT keys", "PUT revocations",
    *(f"ADMIN {verb}" for verb in dict.fromkeys((*VERBS, "fault.put", "fault.list", "fault.stop"))),
)  # fmt: skip
MEMBER_ACTS: Final = (
    "SUB again", "SUB for one topic", "SUB for a topic that is not the group's", "CREDIT", "DRAIN", "BYE",
)  # fmt: skip

Rule = Callable[[Rules], None]
#: Each rule with its weight: what keeps the world going comes often, what ends it seldom.
RULES: Final[dict[str, tuple[int, Rule]]] = {
    "tend": (24, Rules.tend),
    "let_flow": (6, Rules.let_flow),
    "replay_dead": (5, Rules.replay_dead),
    "publish": (24, Rules.publish),
    "answer": (22, Rules.answer),
    "finish_all": (4, Rules.finish_all),
    "judge_anything": (26, Rules.judge_anything),
    "judge_what_is_rare": (16, Rules.judge_what_is_rare),
    "member_acts": (6, Rules.member_acts),
    "time_passes": (14, Rules.time_passes),
    "steer": (10, Rules.steer),
    "tap": (12, Rules.tap),
    "harm": (2, Rules.harm),
    "again": (8, Rules.again),
    "part_ways": (3, Rules.part_ways),
    "disk": (8, Rules.disk),
    "speak": (8, Rules.speak),
    "leave": (6, Rules.leave),
    "odd_hello": (2, Rules.odd_hello),
    "silence": (2, Rules.silence),
    "hold_on": (1, Rules.hold_on),
    "stopped": (1, Rules.stopped),
    "broker_ends": (3, Rules.broker_ends),
    "another_key": (1, Rules.another_key),
}
