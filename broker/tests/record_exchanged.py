"""Writes spec/conformance/exchanged.jsonl: what the cases say and hear on the core in memory.

    python tests/record_exchanged.py        (in broker/, in its test environment)

The core has virtual time and a seed, so the same cases give the same bytes.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any, Final

from conformance import SPEC, Exchange, Frames, Run, cases
from conformance_drivers import memory

PATH: Final = SPEC / "conformance" / "exchanged.jsonl"
BYTES_MAX: Final = 4096


def lines() -> list[str]:
    """The file's lines: each message once, for the first case that has it."""
    made: dict[str, str] = {}
    for case in cases():
        if case.get("only") == "process":
            continue
        with memory(case) as driver:
            run = Run(case, driver)
            run.play()
        for one in run.exchanged:
            said = message(one)
            if sum(map(len, one.frames)) <= BYTES_MAX:
                made.setdefault(_line(said), _line({"case": case["case"], **said}))
    return list(made.values())


def message(one: Exchange) -> dict[str, Any]:
    said: dict[str, Any] = {
        "direction": "client" if one.to_broker else "broker",
        "frames": [text(one.frames, index) for index in range(len(one.frames))],
    }
    return said | ({"refused": one.refused} if one.refused else {})


def text(frames: Frames, index: int) -> object:
    try:
        return frames[index].decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(frames[index]).decode()}


def _line(said: dict[str, Any]) -> str:
    return json.dumps(said, separators=(",", ":"), ensure_ascii=False)


def main(path: Path = PATH) -> int:
    made = lines()
    path.write_text("\n".join(made) + "\n", encoding="utf-8")
    print(f"{len(made)} messages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
