"""What control knows without being asked: tasks that look on timers, and a snapshot of what they last saw.

    agent    on each look, at most five times a second, shared by all who look     agentwatch
    parts    /metrics every 2 s, a second at most each                             scraping, rates
    bus      the broker's admin verbs every second                                 buswatch
    audit    the last act on each target, again after each entry                   audit
    alarms   the conditions over all that, every second                            alarms

No request waits for a part or for the broker, however many ask and whatever hangs.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, NoReturn

import structlog

import atoll
from atoll_ops.agency import Agency
from atoll_ops.control import alarms, audit, buswatch, scraping
from atoll_ops.control.agentwatch import FRESH_SECONDS, AgentWatch
from atoll_ops.control.buswatch import BusWatch
from atoll_ops.control.periodic import every
from atoll_ops.control.scraping import Scraper
from atoll_ops.control.snapshot import Known, compose

_ALARMS_EVERY_SECONDS = 1.0
_AGAIN_SECONDS = 1.0
#: Conditions that control sees by itself; of all others nothing is heard while the broker is away.
_NOT_OF_THE_BUS = frozenset(alarms.KINDS) - {"slow_group"}

#: Hears of an alarm that was raised (True) or cleared (False).
Tell = Callable[[bool, alarms.Alarm], None]
_log = structlog.get_logger("atoll.control")


class Observer:
    """The watchers, and the snapshot made of what they know. `tell` hears of alarms that come and go."""

    def __init__(self, agency: Agency, database: atoll.Database, tell: Tell) -> None:
        self.bus = BusWatch(database)
        self.book = alarms.Book()
        self._agent = AgentWatch(agency)
        self._scraper = Scraper()
        self._database = database
        self._tell = tell
        self._last_acts: dict[str, dict[str, Any]] = {}
        self._acts_changed = asyncio.Event()
        self._made: tuple[float, object, bytes] = (0.0, None, b"")  # when, of which agent's word, as JSON

    # ---- life --------------------------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """What is on disk: call it before `run`."""
        await self.bus.restore()
        await self._read_acts()

    async def run(self) -> None:
        """Observe until cancelled."""
        try:
            async with self._scraper, asyncio.TaskGroup() as group:
                group.create_task(every(scraping.EVERY_SECONDS, self._sweep), name="scrape")
                group.create_task(every(buswatch.EVERY_SECONDS, self.bus.look), name="ask the broker")
                group.create_task(every(_ALARMS_EVERY_SECONDS, self._judge), name="alarms")
                group.create_task(self._follow_audit(), name="last acts")
        finally:
            await self._agent.close()

    def note_act(self) -> None:
        """The audit has changed."""
        self._acts_changed.set()
        self.expire()

    def expire(self) -> None:
        """Something was done: who looks next is not shown how it was before."""
        self._agent.expire()

    # ---- looking -----------------------------------------------------------------------------------------------------

    async def snapshot(self) -> dict[str, Any] | None:
        """The system as last known; None before the agent has ever answered."""
        agent = await self._agent.look()
        return None if agent is None else self._compose(agent)

    async def encoded(self) -> bytes | None:
        """The same as JSON, made once for all who look within a fifth of a second."""
        agent = await self._agent.look()
        if agent is None:
            return None
        made_at, of, text = self._made
        now = time.monotonic()
        if of is not agent or now - made_at >= FRESH_SECONDS:
            text = json.dumps(self._compose(agent)).encode()
            self._made = (now, agent, text)
        return text

    @property
    def agent_lost(self) -> str | None:
        """Why the agent is not heard, or None."""
        return self._agent.lost

    def _compose(self, agent: dict[str, Any]) -> dict[str, Any]:
        known = Known(
            agent=agent, agent_lost=self._agent.lost, windows=self._scraper.windows, bus=self.bus.seen,
            bus_why=self.bus.why, topics_of=self.bus.topics_of, last_acts=self._last_acts, alarms=self.book.listed(),
        )  # fmt: skip
        return compose(known, monotonic=time.monotonic(), wall=time.time())

    # ---- on timers ---------------------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        agent = await self._agent.look()
        if agent is not None and self._agent.lost is None:
            await self._scraper.sweep(agent["parts"])

    async def _judge(self) -> None:
        """Which alarms hold. The timer is a second, so one is seen a second after it could be."""
        agent, now = await self._agent.look(), time.time()
        gauges = {
            f"{name}/{instance}": window.last.gauges
            for (name, instance), window in self._scraper.windows.items()
            if window.last is not None
        }
        found = alarms.of_gauges(gauges, now)
        agent_heard, bus_heard = agent is not None and self._agent.lost is None, self.bus.why is None
        if agent is not None and agent_heard:
            found += alarms.of_parts(agent["parts"], now)
        if self.bus.seen is not None and bus_heard:
            found += alarms.of_bus(self.bus.seen["groups"], self.bus.seen["alarms"], self.book, now)

        def heard(kind: str) -> bool:
            return agent_heard if kind == "crash_loop" else kind in _NOT_OF_THE_BUS or bus_heard

        for raised, alarm in self.book.enter(found, heard):
            level = _log.warning if raised else _log.info
            level("alarm raised" if raised else "alarm cleared", kind=alarm.kind, target=alarm.target, text=alarm.text)
            self._tell(raised, alarm)

    async def _follow_audit(self) -> NoReturn:
        while True:
            await self._acts_changed.wait()
            self._acts_changed.clear()
            try:
                await self._read_acts()
            except atoll.AtollError as error:
                _log.warning("the last acts could not be read", error=str(error))
                await asyncio.sleep(_AGAIN_SECONDS)
                self._acts_changed.set()

    async def _read_acts(self) -> None:
        rows = await self._database.read(audit.last_by_target)
        self._last_acts = {row["target"]: row for row in rows}
        self._made = (0.0, None, b"")  # who acted last is to be seen with the next look
