"""A small history that a good bus could have made, without any bus: what the checker must let pass.

Rounds of: publishers make and send, the log takes, every group delivers, fails, acknowledges; the island echoes.
Between some rounds the broker boots anew, and what was not known to be finished is delivered again.
"""

from __future__ import annotations

from collections import defaultdict

from histories import plan
from histories.plan import Plan
from histories.records import Logs, Record, digest

ROUNDS, EVENTS_A_ROUND = 14, 6
BOOT_EVERY = 4
_LOG = "log-1"


class Simulation:
    """Everything happens at once and in order: the fence is the only clock."""

    def __init__(self) -> None:
        self.plan: Plan = plan.make("synthetic")
        self.logs: Logs = defaultdict(list)
        self._boot, self._fences, self._seq = 1, 0, 0
        self._seqs: dict[str, int] = {}
        self._made: dict[str, int] = defaultdict(int)
        self._effects: dict[str, list[str]] = defaultdict(list)
        self._letters: dict[str, list[Record]] = defaultdict(list)
        self._parked: dict[str, dict[str, int]] = defaultdict(dict)
        self._last_acked: dict[str, str] = {}

    def run(self) -> tuple[Plan, Logs]:
        """The plan and the histories."""
        self._welcome()
        for number in range(1, ROUNDS + 1):
            echoes: list[Record] = []
            for name in plan.PUBLISHERS:
                for record in self._publish(name):
                    echoes += self._spread(record)
            for echo in echoes:
                self._spread(echo)
            self._look()
            if number % BOOT_EVERY == 0:
                self._reboot()
        self._end()
        return self.plan, dict(self.logs)

    def _say(self, role: str, op: str, **fields: object) -> None:
        self.logs[role].append({"op": op, **fields})

    def _welcome(self) -> None:
        for name in plan.PUBLISHERS:
            made = self._made[name]
            bad = made and self._kind(made)[0] == "bad-data"
            self._say(
                f"publisher-{name}", "welcome", session=f"{self._boot}-{name}", boot=self._boot, log=_LOG,
                producer=f"{name}/box", mark=made, last_id=f"{name}-{made}" if made and not bad else None, refused=[],
            )  # fmt: skip

    # ---- publishing ----------------------------------------------------------------------------------------------

    def _publish(self, name: str) -> list[Record]:
        """Makes, sends and hears; those that the log took."""
        role, first = f"publisher-{name}", self._made[name] + 1
        last = first + EVENTS_A_ROUND - 1
        causes = [event_id for other, event_id in self._last_acked.items() if other != name]
        made = [self._event(name, n, causes) for n in range(first, last + 1)]
        self.logs[role].extend(made)
        for _ in range(1 + (first % 4 == 3)):  # some are sent again, because the answer did not come
            self._say(role, "send", session=f"{self._boot}-{name}", first=first, last=last)
        refused = [[one["pseq"], "SCHEMA"] for one in made if one["kind"] == "bad-data"]
        self._say(role, "puback", session=f"{self._boot}-{name}", upto=last, refused=refused)
        self._made[name], self._last_acked[name] = last, f"{name}-{last}"
        return [one for one in made if one["kind"] != "bad-data"]

    def _event(self, name: str, n: int, causes: list[str]) -> Record:
        kind, key = self._kind(n)
        key = key or f"{kind}-{name}-{n if kind != 'plain' else n - 1}"
        return {
            "op": "pub", "id": f"{name}-{n}", "producer": f"{name}/box", "pseq": n, "topic": plan.PUBLISHERS[name][0],
            "key": key, "digest": digest({"n": n}), "trace": f"00-{n:032x}-{n:016x}-01", "kind": kind,
            "causes": causes,
        }  # fmt: skip

    def _kind(self, n: int) -> tuple[str, str]:
        if n % 23 in (5, 6):
            return ("poison", f"poison-{n}") if n % 23 == 5 else ("plain", f"poison-{n - 1}")
        if n % 23 in (11, 12):
            return ("reject", f"reject-{n}") if n % 23 == 11 else ("plain", f"reject-{n - 1}")
        return ("bad-data" if n % 13 == 4 else "plain"), f"k-{n % 3}"

    # ---- consuming -----------------------------------------------------------------------------------------------

    def _spread(self, record: Record) -> list[Record]:
        """Gives it a seq, and to every group; what the island makes of it."""
        self._seq += 1
        self._seqs[record["id"]] = self._seq
        echoes = []
        for group, config in self.plan.groups.items():
            if record["topic"] not in config.topics:
                continue
            if not config.members:
                echoes += self._island(record)
            elif record["key"] in self._parked[group]:
                self._letter(group, record, "BEHIND", self._parked[group][record["key"]], "", 0)
            else:
                self._handle(group, record)
        return echoes

    def _island(self, record: Record) -> list[Record]:
        self._effects["island"].append(record["id"])
        if record["pseq"] % 8:
            return []
        self._made["island"] += 1
        echo = record | {
            "id": f"echo-{record['id']}", "producer": "island/box", "pseq": self._made["island"], "topic": plan.ECHO,
            "digest": digest({"echo": record["id"]}), "kind": "committed", "causes": [record["id"]], "trace": None,
        }  # fmt: skip
        self.logs["stage"].append(echo)
        return [echo]

    def _handle(self, group: str, record: Record, *, again: bool = False) -> None:
        config = self.plan.groups[group]
        fails = config.fails and record["kind"] in ("poison", "reject")
        last = config.attempts_max if fails and record["kind"] == "poison" else 1
        seq = self._seqs[record["id"]]
        for attempt in range(1, last + 1):
            fence = self._deliver(group, record, seq, attempt)
            error = f"{record['kind']} event {record['id']}"
            named = {"session": "s", "group": group, "messages": [[seq, fence]], "error": error}
            if not fails:
                self._ack(group, record, seq, fence, again=again)
            elif record["kind"] == "poison":
                self._say(f"consumer-{group}-1", "nack", attempt=attempt, **named)
            else:
                self._say(f"consumer-{group}-1", "term", **named)
        if fails:
            cause = "FAILED" if record["kind"] == "poison" else "REJECTED"
            error = f"{record['kind']} event {record['id']}"
            self._letter(group, record, cause, None, error, last)

    def _deliver(self, group: str, record: Record, seq: int, attempt: int) -> int:
        self._fences += 1
        fence = (self._boot << 32) + self._fences
        trace = record["trace"] or "00-echo"
        message = [seq, attempt, fence, record["id"], record["topic"], record["key"], record["digest"], trace]
        member = 1 + seq % len(self.plan.groups[group].members)
        self._say(f"consumer-{group}-{member}", "deliver", session=f"{self._boot}-s", group=group, messages=[message])
        return fence

    def _ack(self, group: str, record: Record, seq: int, fence: int, *, again: bool) -> None:
        done: list[list[int]] = [] if again else [[seq, fence]]
        known = [[seq, fence]] if again else []
        self._say(f"consumer-{group}-1", "ack", session="s", group=group, done=done, duplicate=known)
        if not again:
            self._effects[group].append(record["id"])

    def _letter(self, group: str, record: Record, cause: str, behind: int | None, error: str, attempts: int) -> None:
        seq = self._seqs[record["id"]]
        if self.plan.groups[group].on_dead == "park":
            self._parked[group].setdefault(record["key"], seq)
        self._letters[group].append({
            "seq": seq, "event_id": record["id"], "subject": record["key"], "cause": cause, "behind": behind,
            "error": error, "attempts": attempts,
        })  # fmt: skip

    # ---- the broker ----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        seen = {name: [self._seq, 0, len(self._letters[name])] for name in self.plan.groups}
        self._say("observer", "offsets", boot=self._boot, groups=seen)

    def _reboot(self) -> None:
        """It has forgotten that the last plain event of each publisher is finished: the witness gets it again."""
        self._boot += 1
        self._fences = 0
        self._welcome()
        for name in plan.PUBLISHERS:
            plain = [one for one in self.logs[f"publisher-{name}"] if one["op"] == "pub" and one["kind"] == "plain"]
            self._handle("witness", plain[-1], again=True)
        self._say("stage", "fault", kind="kill broker", target="broker", began=1, ended=2, evidence="wait status -9")

    def _end(self) -> None:
        self._say("stranger", "attempt", what="subscribe")
        self._say("stranger", "outcome", what="subscribe", outcome="refused ACL")
        self._say("consumer-mail-2", "stale", session="s", group="mail", messages=[[1, 1]])
        self._say("stage", "healed", seconds=301.0, faults={})
        groups = {name: [self._seq, 0, len(self._letters[name])] for name in self.plan.groups}
        self._say("stage", "drained", seconds=2.0, groups=groups, island_outbox=0)
        for group in self.plan.groups:
            self._say("stage", "letters", group=group, letters=self._letters[group])
            self._say("stage", "effects", group=group, ids=self._effects[group])


def good() -> tuple[Plan, Logs]:
    """The plan and the histories of a bus that did nothing wrong."""
    return Simulation().run()
