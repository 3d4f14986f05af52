"""The core against a model that a reader can check by eye: hypothesis looks for a history in which they differ.

The model knows what was published and acked; after every step the invariants of the bus must hold, and at the end,
when every member works and nothing fails any more, every event must have been finished exactly once per group.
"""

from __future__ import annotations

from typing import Any

from bus_helpers import MESH, Consumer, Operator, Shop, event
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from atoll_broker.storage_memory import MemoryStorage
from atoll_broker.testing import MemoryBroker

SMALL = MESH + "window_events_max = 6\ncache_bytes_max = 2048\n"
SUBJECTS = st.sampled_from(["a", "b", "c"])


class BrokerMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.broker = MemoryBroker(SMALL)
        self.published: list[tuple[int, str]] = []  # acked by PUBACK: (n, subject), in order
        self.sent: list[dict[str, Any]] = []  # sent and not acked yet
        self.count = 0
        self.acked: set[int] = set()
        self.out: dict[int, list[dict[str, Any]]] = {1: [], 2: []}  # what each member holds
        self.fences: set[int] = set()
        self.durable: set[int] = set()  # acks seen on disk
        self._reconnect()

    def _reconnect(self) -> None:
        self.shop = Shop(self.broker)
        mark = self.shop.welcome["producer"]["mark"]
        assert mark >= len(self.published), "an acked event was lost"
        for _ in range(mark - len(self.published)):
            self._confirm()
        self.members = {number: self._member(number) for number in (1, 2)}
        self.operator = Operator(self.broker)

    def _member(self, number: int) -> Consumer:
        self.out[number] = []
        return Consumer(self.broker, number=number, process=f"p-{number}-{self.count}-{len(self.fences)}")

    def _confirm(self) -> None:
        confirmed = self.sent.pop(0)
        self.published.append((confirmed["data"]["n"], confirmed["subject"]))

    def _collect(self) -> None:
        for answer in self.shop.heard("PUBACK"):
            while len(self.published) < answer["upto"]:
                self._confirm()
        for number, member in self.members.items():
            for delivery in member.take():
                assert delivery["fence"] not in self.fences, "a fence came twice"
                assert delivery["n"] not in self.acked, "an acked event was delivered again"
                self.fences.add(delivery["fence"])
                self.out[number].append(delivery)

    @rule(subjects=st.lists(SUBJECTS, min_size=1, max_size=4), resend=st.integers(0, 3))
    def publish(self, subjects: list[str], resend: int) -> None:
        """New events, sent together with some that were sent before."""
        for subject in subjects:
            self.count += 1
            self.sent.append(event(self.count, subject))
        first = len(self.published) + 1
        again = [event(n, subject) for n, subject in self.published[max(0, len(self.published) - resend) :]]
        self.shop.peer.say("PUB", again + self.sent, producer="shop/box", first=first - len(again))
        self._collect()

    @rule()
    def hold_or_release_commits(self) -> None:
        if self.broker.hold_commits:
            self.broker.release()
        else:
            self.broker.hold_commits = True
        self._collect()

    @precondition(lambda self: any(self.out.values()))
    @rule(data=st.data(), verdict=st.sampled_from(["ack", "ack", "ack", "nack", "wip", "late"]))
    def answer(self, data: st.DataObject, verdict: str) -> None:
        number = data.draw(st.sampled_from([number for number, held in self.out.items() if held]))
        held, member = self.out[number], self.members[number]
        delivery = data.draw(st.sampled_from(held))
        if verdict == "late":
            assert member.ack({**delivery, "fence": delivery["fence"] - 1}), "a wrong fence must be stale"
        elif verdict == "wip":
            member.wip(delivery)
        else:
            held.remove(delivery)
            stale = member.ack(delivery) if verdict == "ack" else member.nack(delivery, delay_ms=0)
            if verdict == "ack" and not stale:
                self.acked.add(delivery["n"])
        self._collect()

    @rule(seconds=st.sampled_from([0.2, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.broker.advance(seconds)
        for client in (self.shop, self.operator, *self.members.values()):
            client.peer.say("PING")
        self._collect()

    @rule(number=st.sampled_from([1, 2]), politely=st.booleans())
    def member_comes_again(self, number: int, politely: bool) -> None:
        if politely:
            self.members[number].peer.say("BYE")
        else:
            self.members[number].peer.close()
        self.members[number] = self._member(number)
        self._collect()

    def _kept_acks(self) -> set[int]:
        """The acks that are on disk. They may lag behind what was acked, and never run ahead of it."""
        storage = self.broker.storage
        assert isinstance(storage, MemoryStorage)
        finished = {seq for seq in storage.events if seq <= storage.floors["bank"]} | storage.acked.get("bank", set())
        letters = {seq for group, seq in storage.letters if group == "bank"}
        kept = {storage.events[seq].pseq for seq in finished - letters}
        assert kept <= self.acked, "the disk ran ahead of what was acked"
        return kept

    @rule()
    def broker_restarts(self) -> None:
        """What was neither committed nor acked is sent again by the outbox; acks not flushed may be forgotten."""
        self.broker.restart()
        self.broker.hold_commits = False
        self.acked &= self._kept_acks()
        self._reconnect()
        self._collect()

    @precondition(lambda self: not self.broker.hold_commits)
    @rule(subject=SUBJECTS)
    def replay(self, subject: str) -> None:
        self.operator.ask("dlq.replay", group="bank", subject=subject)
        self._collect()

    @invariant()
    def one_event_of_a_key_is_leased_at_a_time_and_none_overtakes(self) -> None:
        group = self.broker.core.groups["bank"]
        leased = [entry.subject for entry in group._leases.values()]
        assert len(leased) == len(set(leased))
        for entry in group._leases.values():
            waiting = [other.seq for other in group._keys[entry.subject]]
            assert entry.seq == min(waiting)

    @invariant()
    def an_ack_that_reached_the_disk_is_never_forgotten(self) -> None:
        kept = self._kept_acks()
        assert self.durable <= kept
        self.durable = kept

    @invariant()
    def lag_counts_what_is_neither_acked_nor_dead(self) -> None:
        core = self.broker.core
        group = core.groups["bank"]
        stored = len(self.broker.storage.events)  # type: ignore[attr-defined]
        assert group.lag == stored - len(self.acked) - group.dead
        assert 0 <= group.floor <= group.scanned <= core.log.last

    def teardown(self) -> None:
        """Liveness: once nothing fails any more, everything is delivered."""
        if not hasattr(self, "broker"):
            return
        self.broker.restart()
        self.broker.hold_commits = False
        broker = self.broker
        consumer, operator = Consumer(broker), Operator(broker)
        for subject in ("a", "b", "c"):
            operator.ask("dlq.replay", group="bank", subject=subject)
        last: dict[str, int] = {}
        for _ in range(200):
            deliveries = consumer.wait(0.5)
            for delivery in deliveries:
                subject = delivery["event"]["subject"]
                assert last.get(subject, 0) < delivery["seq"], "a key was reordered"
                last[subject] = delivery["seq"]
                consumer.ack(delivery)
            if broker.core.groups["bank"].lag == 0:
                break
        assert broker.core.groups["bank"].lag == 0, "events were never delivered"


TestBroker = BrokerMachine.TestCase
TestBroker.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
