"""Planted fault: every fourth mail is noted and not filed. Loaded by a part whose PYTHONPATH names this folder."""

from __future__ import annotations

import itertools

from atoll_notifications.maildir import Maildir

deliver = Maildir.deliver
turns = itertools.count(1)


def sometimes(self: Maildir, name: str, message: bytes) -> None:
    """Passes over every fourth."""
    if next(turns) % 4:
        deliver(self, name, message)


Maildir.deliver = sometimes
