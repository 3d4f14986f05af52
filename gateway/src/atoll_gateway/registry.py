"""Who offers what, as the broker last said, kept across the gateway's own restart.

Three rules make a known route outlive everything else:
- An *unsettled* registry (the broker has just started, services are still coming back) adds and changes, and removes
  nothing: otherwise a broker's restart would empty the front door for seconds.
- A settled one removes instances. The routes of a service without any instance stay: its clients are told that the
  service is away (503), not that what they ask for never existed (404).
- With the broker out of reach the readiness it told is old news: an instance that was not ready may be by now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from . import routing
from .routing import Refused, Services, Slot, Table
from .storage import Shelf

_DOCUMENT = "registry.json"
_log = structlog.get_logger(__name__)


class _Kept(msgspec.Struct):
    """The document on disk."""

    services: dict[str, dict[str, Slot]]
    absent: dict[str, dict[str, Slot]] = {}  # services without an instance, with their last ones, for their routes


class _Told(msgspec.Struct):
    """What the broker tells, not yet looked into."""

    services: dict[str, dict[str, Any]]


class Registry:
    """The services and the table made of them. `live` tells whether the broker is there to contradict."""

    def __init__(self, shelf: Shelf, public_prefixes: tuple[str, ...], live: Callable[[], bool]) -> None:
        self._shelf = shelf
        self._public_prefixes = public_prefixes
        self._live = live
        self._kept = _Kept({})
        self._settled = False
        self._logged: frozenset[Refused] = frozenset()
        self.known = False  # whether any registry has been seen, now or before the restart
        self.table = Table()
        self.version = 0  # counts tables: whoever derives something from one knows when to do it again

    def restore(self) -> None:
        """Takes up what was known before the restart."""
        content = self._shelf.load(_DOCUMENT)
        if content is None:
            return
        try:
            kept = msgspec.json.decode(content, type=_Kept)
        except msgspec.DecodeError as error:
            self._shelf.set_aside(_DOCUMENT, str(error))
            return
        self._take(kept)

    def update(self, value: Any, settled: bool) -> None:
        """A registry from the broker: `{services: {name: {slot: {…}}}}`. One that makes no sense changes nothing."""
        try:
            told = _readable(msgspec.convert(value, _Told).services)
        except msgspec.ValidationError as error:
            _log.error("a registry that makes no sense was ignored", why=str(error))
            return
        self._settled = settled
        kept = self._settle(told) if settled else self._add(told)
        self._take(kept)
        self._shelf.keep(_DOCUMENT, msgspec.json.encode(kept))

    def services(self) -> Services:
        """The instances known now."""
        return self._kept.services

    def absent(self) -> Services:
        """Services that were here once and have no instance now."""
        return self._kept.absent

    def candidates(self, service: str, slots: frozenset[str]) -> dict[str, Slot]:
        """The instances among `slots` that may be asked: the ready ones, or all while readiness is old news."""
        here = {name: slot for name, slot in self._kept.services.get(service, {}).items() if name in slots}
        ready = {name: slot for name, slot in here.items() if slot.ready}
        return here if not ready and self.stale else ready

    @property
    def stale(self) -> bool:
        """Whether what is known may be old news."""
        return not (self._settled and self._live())

    def _settle(self, told: dict[str, dict[str, Slot]]) -> _Kept:
        gone = {**self._kept.absent, **self._kept.services}
        return _Kept(told, {name: slots for name, slots in gone.items() if name not in told})

    def _add(self, told: dict[str, dict[str, Slot]]) -> _Kept:
        before = self._kept.services
        merged = {name: {**before.get(name, {}), **told.get(name, {})} for name in {**before, **told}}
        return _Kept(merged, {name: slots for name, slots in self._kept.absent.items() if name not in told})

    def _take(self, kept: _Kept) -> None:
        self._kept = kept
        self.known = True
        self.table = routing.build(_without_claims(kept), self._public_prefixes)
        self.version += 1
        refused = frozenset(self.table.refused)
        for route in refused - self._logged:
            _log.error(
                "a route was refused",
                service=route.service,
                slot=route.slot,
                method=route.method,
                path=route.path,
                why=route.why,
            )
        self._logged = refused


def _readable(services: dict[str, dict[str, Any]]) -> dict[str, dict[str, Slot]]:
    """Each instance by itself: what one service announces wrongly must not cost the others their routes."""
    readable: dict[str, dict[str, Slot]] = {}
    for service, slots in services.items():
        for name, slot in slots.items():
            try:
                readable.setdefault(service, {})[name] = msgspec.convert(slot, Slot)
            except msgspec.ValidationError as error:
                _log.error("an instance's announcement makes no sense", service=service, slot=name, why=str(error))
    return {service: slots for service, slots in readable.items() if slots}


def _without_claims(kept: _Kept) -> Services:
    """Present services and the absent ones whose prefixes nobody present has taken over."""
    taken = {prefix for slots in kept.services.values() for slot in slots.values() for prefix in slot.prefixes}
    absent = {
        name: slots
        for name, slots in kept.absent.items()
        if not any(prefix in taken for slot in slots.values() for prefix in slot.prefixes)
    }
    return {**absent, **kept.services}
