"""A service's HTTP face, for aiohttp (pip extra `web`).

`attach` makes an application a part of the system; every route's handler carries `requires` or `public`.
"""

from ._attach import Attachment, attach
from ._idempotency import Answer, idempotent
from ._json import body_hash, read_json
from ._problems import Problem
from ._security import SCOPES, SUBJECT, public, requires
from ._serve import serve

__all__ = [
    "SCOPES",
    "SUBJECT",
    "Answer",
    "Attachment",
    "Problem",
    "attach",
    "body_hash",
    "idempotent",
    "public",
    "read_json",
    "requires",
    "serve",
]
