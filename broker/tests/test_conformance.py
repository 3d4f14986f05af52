"""The conformance cases of the spec: on the core in memory, on both storages, and on the broker's own process.

That the cases can fail is tried as well: on cores with a planted fault, and through a wire that lies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import record_exchanged
from conformance import SPEC, Case, Frames, Run, Step, cases
from conformance_drivers import MemoryDriver, memory, process

from atoll_broker import codec, entries, grants, groups
from atoll_broker.core import Core
from atoll_broker.storage import Storage
from atoll_broker.watches import Watches

CASES = cases()
IN_MEMORY = [case for case in CASES if case.get("only") != "process"]
TEXT = (SPEC / "wire-1.md").read_text(encoding="utf-8")


def name_of(case: Case) -> str:
    return f"{case['file']}: {case['case']}"


@pytest.mark.parametrize("case", IN_MEMORY, ids=name_of)
def test_the_core_in_memory_conforms(case: Case, storage: Storage) -> None:
    with memory(case, storage) as driver:
        Run(case, driver).play()


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_process_conforms(case: Case, tmp_path: Path) -> None:
    with process(case, tmp_path) as driver:
        Run(case, driver).play()


# ---- nothing of the spec is left out ---------------------------------------------------------------------------------


def steps(case: Case) -> Iterator[Step]:
    for step in case["steps"]:
        yield from step["steps"] if "repeat" in step else [step]


ALL_STEPS = [step for case in CASES for step in steps(case)]


def values(found: Any, key: str) -> Iterator[Any]:
    """Every value of this key, however deep."""
    if isinstance(found, dict):
        for name, value in found.items():
            if name == key:
                yield value
            yield from values(value, key)
    elif isinstance(found, list):
        for one in found:
            yield from values(one, key)


def section(number: int) -> str:
    return re.split(r"(?m)^## ", TEXT)[number]


def first_column(number: int) -> set[str]:
    """What a section's table has between backticks at the beginning of its rows."""
    return set(re.findall(r"(?m)^\| `([^`]+)`", section(number)))


def test_every_command_of_a_client_is_said() -> None:
    said = {step["send"].partition(" ")[2] for step in ALL_STEPS if "send" in step} | {"HELLO", "SUB", "CREDIT", "PUB"}
    assert said >= first_column(2)
    assert len(first_column(2)) >= 14


def test_every_command_of_the_broker_is_heard() -> None:
    heard = {step["get"].partition(" ")[2] for step in ALL_STEPS if "get" in step} | {"PUBACK", "MSG"}
    assert heard >= first_column(3)
    assert len(first_column(3)) >= 12


def test_every_error_code_is_heard_and_closes_as_the_spec_says() -> None:
    codes = json.loads((SPEC / "errors.json").read_text(encoding="utf-8"))["codes"]
    asked = [step for step in ALL_STEPS if "get" in step or "acked" in step]
    assert {entry["code"] for entry in codes} <= set(values(asked, "code"))
    closing = {entry["code"] for entry in codes if entry["closes"]}
    headers = [step.get("header", {}) for step in asked if step.get("get", "").endswith(" ERR")]
    said = {header.get("code") for header in headers if header.get("closes") is True}
    assert closing <= said, f"no case says that these close: {closing - said}"


def test_every_verb_of_admin_is_asked() -> None:
    assert first_column(9) <= {step["header"]["verb"] for step in ALL_STEPS if step.get("send", "").endswith(" ADMIN")}


def test_every_section_has_cases_and_every_case_its_own_name() -> None:
    assert {case["spec"] for case in CASES} == {str(number) for number in range(1, 12)}
    assert len({case["case"] for case in CASES}) == len(CASES)


def test_what_was_exchanged_is_up_to_date() -> None:
    kept = record_exchanged.PATH.read_text(encoding="utf-8").splitlines()
    assert kept == record_exchanged.lines(), "run `python tests/record_exchanged.py` in broker/"


# ---- the cases can fail ----------------------------------------------------------------------------------------------


def reds(wrap: Callable[[MemoryDriver], MemoryDriver] = lambda driver: driver) -> list[str]:
    """The cases that fail."""
    found = []
    for case in IN_MEMORY:
        with memory(case) as driver:
            try:
                Run(case, wrap(driver)).play()
            except Exception:  # a planted fault may show as anything
                found.append(case["case"])
    return found


FAULTS: dict[str, tuple[Any, str, Any]] = {
    "grants are not checked": (grants, "check_hello", lambda *_: None),
    "any fence counts": (groups, "_holds", lambda entry, session, _: getattr(entry.member, "session", "") == session),
    "no key is parked": (groups.Group, "_is_parked", lambda *_: False),
    "a slot can be held twice": (Core, "_make_way", lambda *_: None),
    "no frame is a sign of life": (Core, "_seen", lambda *_: None),
    "settled from the start": (Watches, "tick", lambda self, _: setattr(self, "_settled", True)),
    "headers nest as they like": (codec, "NESTING_MAX", 900),
    "in flight without bound": (entries.Member, "room", property(lambda member: 0 if member.draining else 1000)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*FAULTS[fault])
    assert reds()


def _attempt_too_high(frames: Frames) -> list[Frames]:
    header = json.loads(frames[1])
    header["messages"] = [[seq, attempt + 1, lease, fence] for seq, attempt, lease, fence in header["messages"]]
    return [[frames[0], json.dumps(header).encode(), frames[2]]]


def _with(**fields: Any) -> Callable[[Frames], list[Frames]]:
    return lambda frames: [[frames[0], json.dumps({**json.loads(frames[1]), **fields}).encode(), *frames[2:]]]


LIES: dict[str, tuple[str, Callable[[Frames], list[Frames]]]] = {
    "STALE is lost": ("STALE", lambda _: []),
    "MSG comes twice": ("MSG", lambda frames: [frames, frames]),
    "MSG is lost": ("MSG", lambda _: []),
    "the attempt is too high": ("MSG", _attempt_too_high),
    "PUBACK is lost": ("PUBACK", lambda _: []),
    "PUBACK refuses nothing": ("PUBACK", _with(refused=[])),
    "PUBACK is for more than came": ("PUBACK", _with(upto=99)),
    "BYE is not answered": ("BYE", lambda _: []),
    "no ERR closes": ("ERR", _with(closes=False)),
    "no ERR names its field": ("ERR", _with(field=None)),
    "everything is settled": ("STATE", _with(settled=True)),
    "nothing is left of the mark": ("WELCOME", _with(producer=None)),
}


class LyingWire(MemoryDriver):
    """Changes what the broker says by one command."""

    def __init__(self, driver: MemoryDriver, lie: str) -> None:
        super().__init__(driver.broker)
        self._command, self._change = LIES[lie]

    def receive(self, peer: str) -> list[Frames]:
        heard = []
        for frames in super().receive(peer):
            heard += self._change(frames) if frames[0] == b"A1" + self._command.encode() else [frames]
        return heard


@pytest.mark.parametrize("lie", LIES)
def test_a_wire_that_lies_is_found(lie: str) -> None:
    assert reds(lambda driver: LyingWire(driver, lie))
