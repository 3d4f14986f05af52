"""Which scope an act needs. To see is `ops:read`, which the way in has checked; what is not listed needs `ops:operate`.

Kept in one place, so that what an operator may and what only an admin may can be read at once.
"""

from __future__ import annotations

import msgspec

from atoll_ops.operations import ACTS

#: Everything stands on these two parts: only an admin acts on them.
ADMIN_ONLY = frozenset({"broker", "auth"})
#: What changes the books, or gives events up, whatever it is done to.
ADMIN_ACTS = frozenset({"publish", "group.detach"})


class Asker(msgspec.Struct, frozen=True):
    """Who asks, and what they may do."""

    who: str
    scopes: frozenset[str]


def scope_for(act: str, target: str) -> str:
    """The scope that an act on a target needs."""
    on_all = target.partition("/")[0] in ADMIN_ONLY and act in ACTS
    return "ops:admin" if on_all or act in ADMIN_ACTS else "ops:operate"
