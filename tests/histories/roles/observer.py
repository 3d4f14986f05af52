"""An operator who looks at the groups all the time, so that a floor that runs ahead is seen while it does."""

from __future__ import annotations

import time

from histories.line import Line, LostError
from histories.records import Record
from histories.roles.role import Life, begin

EVERY_SECONDS = 0.2
ANSWER_SECONDS = 3.0


def ask(line: Line, verb: str, **arguments: object) -> Record:
    """One ADMIN; its RESULT. Raises LostError."""
    line.send("ADMIN", {"request": "r", "verb": verb, **arguments})
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        message = line.receive(50)
        if message is not None and message.command == "RESULT":
            return message.header
        if message is not None and message.command == "ERR":
            raise LostError(f"{verb}: {message.header}")
    raise LostError(f"no answer to {verb}")


def watch(life: Life) -> None:
    """Until SIGTERM: every group's floor, with the boot that showed it."""
    while not life.ending:
        line = life.line()
        try:
            boot = line.open(life.config.slot)["boot"]
            while not life.ending:
                groups = ask(line, "groups")["groups"]
                seen = {name: [group["floor"], group["lag"], group["dead"]] for name, group in groups.items()}
                life.say("offsets", boot=boot, groups=seen)
                time.sleep(EVERY_SECONDS)
        except LostError as lost:
            life.say("lost", session=line.session, why=str(lost))
        finally:
            line.close()
        life.pause()


if __name__ == "__main__":
    watch(begin())
