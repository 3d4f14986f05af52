"""One run: `python -m histories.stage FOLDER --seed S --least LEAST --python SDK_PYTHON`.

It is the first process of a process, network and mount namespace of its own (see `start` in running.py): when it goes,
however it goes, the kernel ends everything in there. Exit code 0 means that the run came to its end, not that its
histories are good; that is the checker's to say.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from histories import clock, plan
from histories.line import Line, LostError
from histories.nemesis import BrokerLane, ClientLane, Nemesis, NetworkLane
from histories.network import BUS_PORT, Region, command
from histories.plan import Least
from histories.records import Record, Recorder, recorder_path
from histories.roles.observer import ask
from histories.world import HTTP_PORT, Actor, broker_ready, make_keys

HERE = Path(__file__).resolve().parent
LETTERS_PAGE = 1000
LETTERS_SECONDS_MAX = 30.0


class Stage:
    """The processes of one run, and its end."""

    def __init__(self, folder: Path, seed: str, python: str, planted: dict[str, str]) -> None:
        """`planted`: part -> a folder for its PYTHONPATH; a sitecustomize there makes it one that breaks its word."""
        self._folder = folder
        self._python = python
        self._seed = seed
        self.plan = plan.make(seed)
        self.histories = folder / "histories"
        for name in ("histories", "state", "logs", "configs"):
            (folder / name).mkdir(parents=True)
        self.plan.write(self.histories)
        make_keys(folder / "keys", plan.IDENTITIES)
        (folder / "mesh.toml").write_text(plan.mesh())
        self.recorder = Recorder(self.histories, "stage", 1)
        self.clock = clock.WallClock(folder, clock.build(folder))
        self.regions: dict[str, Region] = {}
        self._planted = planted
        self.broker = self._broker()
        self.publishers: list[Actor] = []
        self.consumers: list[Actor] = []
        self.others: list[Actor] = []

    # ---- who there is --------------------------------------------------------------------------------------------

    def _broker(self) -> Actor:
        variables = {
            "ATOLL_SLOT": "broker/1", "ATOLL_HOST": "127.0.0.1", "ATOLL_PORT": str(HTTP_PORT),
            "ATOLL_DATA": str(self._folder / "broker"), "ATOLL_KEYS": str(self._folder / "keys" / "broker"),
            "ATOLL_BUS": f"tcp://0.0.0.0:{BUS_PORT}", "ATOLL_MESH": str(self._folder / "mesh.toml"),
        } | self.clock.variables  # fmt: skip
        variables["PYTHONPATH"] = self._planted.get("broker", "")
        return Actor(
            "broker", lambda _: [self._python, "-m", "atoll_broker"], self._folder / "logs", variables=variables,
            ready=broker_ready,
        )  # fmt: skip

    def _role(self, module: str, role: str, slot: str, region: str | None, **more: Any) -> Actor:
        """A raw role; in the hub where it has no region."""
        inside: Sequence[str] = self.regions[region].inside if region else ()
        endpoint = self.regions[region].endpoint if region else f"tcp://127.0.0.1:{BUS_PORT}"
        config = self._folder / "configs" / f"{role}.json"
        config.write_text(json.dumps({
            "role": role, "slot": slot, "endpoint": endpoint, "keys": str(self._folder / "keys" / slot.split("/")[0]),
            "histories": str(self.histories), "state": str(self._folder / "state"), "seed": self._seed, "more": more,
        }))  # fmt: skip
        words = [*inside, sys.executable, "-m", f"histories.roles.{module}", str(config)]
        actor = Actor(role, lambda life: [*words, str(life)], self._folder / "logs")
        actor.ready = lambda: recorder_path(self.histories, role, actor.life).exists()
        return actor

    def _island(self) -> Actor:
        home = self._folder / "island"
        shutil.copytree(HERE / "island", home)
        region = self.regions["south"]
        variables = {
            "ATOLL_SLOT": "island/1", "ATOLL_HOST": "127.0.0.1", "ATOLL_PORT": "7003",
            "ATOLL_DATA": str(home / "data"), "ATOLL_KEYS": str(self._folder / "keys" / "island"),
            "ATOLL_BUS": region.endpoint, "OTEL_SDK_DISABLED": "true", "PYTHONPATH": self._planted.get("island", ""),
        }  # fmt: skip
        words = [*region.inside, self._python, str(home / "service.py")]
        return Actor(
            "island-1", lambda _: words, self._folder / "logs", cwd=home, variables=variables,
            ready=lambda: self._island_outbox() >= 0,
        )  # fmt: skip

    def start(self) -> None:
        """Everything, the broker first."""
        command("ip", "link", "set", "lo", "up")
        for number, name in enumerate(plan.REGIONS, 1):
            self.regions[name] = Region(name, number)
        self.broker.start()
        self.broker.wait_ready()
        self.publishers = [self._publisher(name) for name in plan.PUBLISHERS]
        self.consumers = [*self._members(), self._island()]
        self.others = [
            self._role("observer", "observer", "control/1", None),
            self._role(
                "stranger", "stranger", "stranger/1", None, topic=plan.ORDER, group="ledger", forged_slot="ledger/1"
            ),
        ]
        for actor in self.actors:
            actor.start()
        for actor in self.actors:
            actor.wait_ready()

    def _publisher(self, name: str) -> Actor:
        topic, region = plan.PUBLISHERS[name]
        return self._role(
            "publisher", f"publisher-{name}", f"{name}/1", region, topic=topic, keys=plan.KEYS,
            others=[other for other in plan.PUBLISHERS if other != name], rate=self.plan.rates[name],
            began=time.monotonic(), event_bytes_max=plan.EVENT_BYTES_MAX,
        )  # fmt: skip

    def _members(self) -> list[Actor]:
        return [
            self._role(
                "consumer", f"consumer-{name}-{number}", f"{name}/{number}", region, group=name, topics=group.topics,
                fails=group.fails,
            )
            for name, group in self.plan.groups.items()
            for number, region in group.members
        ]  # fmt: skip

    @property
    def actors(self) -> list[Actor]:
        """All but the broker."""
        return [*self.publishers, *self.consumers, *self.others]

    # ---- faults --------------------------------------------------------------------------------------------------

    def torment(self, least: Least) -> None:
        """Faults until there were enough; then everything is healed."""
        nemesis = Nemesis(self.recorder, self._seed)
        lanes = [
            nemesis.run(BrokerLane(nemesis, self.broker, self.clock, self._events)),
            nemesis.run(ClientLane(nemesis, [*self.publishers, *self.consumers])),
            nemesis.run(NetworkLane(nemesis, list(self.regions.values()))),
        ]
        try:
            while not nemesis.over.wait(0.5):
                for actor in (self.broker, *self.actors):
                    _check_if_free(actor)
                if self._is_enough(nemesis, least) or nemesis.seconds >= least.seconds_max:
                    break
        finally:
            nemesis.over.set()
            for lane in lanes:
                lane.join()
        if nemesis.failure is not None:
            raise nemesis.failure
        self.recorder.say("healed", seconds=round(nemesis.seconds, 3), faults=dict(nemesis.hits))

    def _is_enough(self, nemesis: Nemesis, least: Least) -> bool:
        return (
            nemesis.seconds >= least.seconds
            and nemesis.hits.total() >= least.faults
            and self._events() >= least.events
            and self.broker.life >= least.boots
        )

    def _events(self) -> int:
        """How many the raw publishers have heard to be on disk."""
        batons = (self._folder / "state").glob("*.acked")
        return sum(int(path.read_text().rsplit("-", 1)[1]) for path in batons)

    # ---- the end -------------------------------------------------------------------------------------------------

    def drain(self, seconds_max: float) -> None:
        """Publishers make no more and send what they have; then every group has nothing left."""
        began = time.monotonic()
        limit = began + seconds_max
        for actor in self.publishers:
            actor.wait_ready()  # one that has just been started again would die of the signal
            actor.signal(signal.SIGTERM)
        for actor in self.publishers:
            code = actor.wait(limit - time.monotonic())
            self.recorder.say("finished", role=actor.name, code=code)
        groups, outbox = self._wait_empty(limit)
        self.recorder.say("drained", seconds=round(time.monotonic() - began, 3), groups=groups, island_outbox=outbox)

    def _wait_empty(self, limit: float) -> tuple[Record, int]:
        """Until no group lags and the island's outbox is empty, twice in a row; what was seen last."""
        groups: Record = {}
        outbox, quiet = -1, 0
        while time.monotonic() < limit and quiet < 2:
            try:
                with self._operator() as line:
                    while time.monotonic() < limit and quiet < 2:
                        outbox = self._island_outbox()
                        groups = {
                            name: [group["floor"], group["lag"], group["dead"]]
                            for name, group in ask(line, "groups")["groups"].items()
                        }
                        quiet = quiet + 1 if not outbox and not any(lag for _, lag, _ in groups.values()) else 0
                        time.sleep(0.1)
            except LostError:
                time.sleep(0.1)
        return groups, outbox

    def final_state(self) -> None:
        """The dead letters, as an operator reads them; then all end; then the effects, where they are."""
        for name in self.plan.groups:
            self.recorder.say("letters", group=name, letters=self._letters_of(name))
        for actor in (*self.consumers, *self.others):
            actor.wait_ready()
            self.recorder.say("exit", role=actor.name, code=actor.end())
        self.recorder.say("exit", role="broker", code=self.broker.end())
        for name, group in self.plan.groups.items():
            if group.members:
                self._effects(name, self._folder / "state" / f"{name}.db")
        self._effects("island", self._island_database)
        self._said()

    def _letters_of(self, group: str) -> list[Record]:
        """By an operator who tries again, as every client does."""
        limit = time.monotonic() + LETTERS_SECONDS_MAX
        while True:
            try:
                with self._operator() as line:
                    return _letters(line, group)
            except LostError:
                if time.monotonic() > limit:
                    raise
                time.sleep(0.1)

    @contextlib.contextmanager
    def _operator(self) -> Iterator[Line]:
        line = Line(f"tcp://127.0.0.1:{BUS_PORT}", self._folder / "keys" / "control")
        try:
            line.open("control/2")
            yield line
        finally:
            line.close()

    @property
    def _island_database(self) -> Path:
        return self._folder / "island" / "data" / "island.db"

    def _island_outbox(self) -> int:
        """What it has not got rid of; -1 while it has no database yet."""
        try:
            return int(_rows(self._island_database, "SELECT count(*) FROM atoll_outbox")[0][0])
        except sqlite3.OperationalError:
            return -1

    def _effects(self, group: str, path: Path) -> None:
        rows = _rows(path, "SELECT id FROM effect ORDER BY n")
        self.recorder.say("effects", group=group, ids=[row[0] for row in rows])

    def _said(self) -> None:
        """What the island has published, in the order of its commits: its pseq are counted so."""
        producer = f"island/{_rows(self._island_database, 'SELECT uuid FROM atoll_producer')[0][0]}"
        rows = _rows(self._island_database, "SELECT id, key, digest, cause FROM said ORDER BY n")
        self.recorder.say_all([
            {"op": "pub", "id": row[0], "producer": producer, "pseq": pseq, "topic": plan.ECHO, "key": row[1],
             "digest": row[2], "trace": None, "kind": "committed", "causes": [row[3]]}
            for pseq, row in enumerate(rows, 1)
        ])  # fmt: skip


def _check_if_free(actor: Actor) -> None:
    """Has it died by itself? Who is being hit at this moment is looked at the next time."""
    if actor.lock.acquire(blocking=False):
        try:
            actor.check()
        finally:
            actor.lock.release()


def _letters(line: Line, group: str) -> list[Record]:
    found: list[Record] = []
    more = True
    while more:
        after = found[-1]["seq"] if found else 0
        page = ask(line, "dlq.list", group=group, after=after, limit=LETTERS_PAGE)
        found.extend(page["letters"])
        more = page["more"]
    return found


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def main() -> int:
    """The run, with a line on stdout for each step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--least", type=Least.read, required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--planted", nargs=2, action="append", default=[], metavar=("PART", "FOLDER"))
    options = parser.parse_args()
    stage = Stage(options.folder, options.seed, options.python, dict(options.planted))
    steps: list[Callable[[], None]] = [
        stage.start,
        lambda: stage.torment(options.least),
        lambda: stage.drain(options.least.drain_seconds_max),
        stage.final_state,
    ]
    for name, step in zip(("start", "faults", "drain", "final state"), steps, strict=True):
        began = time.monotonic()
        step()
        print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
