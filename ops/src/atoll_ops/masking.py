"""An environment as people may see it: names and values, without the secrets among them.

A name or a value may give a secret away, so both are looked at; what might be one is masked, for an operator who sees
too little asks, and one who saw too much cannot forget it. The path of a file that is there is no secret: what is in
the file is. Of an address what may be told is told (scheme and host), since that is what one looks for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MASK = "••••••"
_NAME = re.compile(
    r"PASSW|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|(KEYS?|COOKIES?|WEBHOOK)(_|$)|(^|_)(PASS|PWD|PIN|DSN|HEADERS)(_|$)",
    re.IGNORECASE,
)
#: A measure of a secret (how long a token lives) is none.
_MEASURE = re.compile(r"_(SECONDS|MS|BYTES|COUNT|MAX|MIN)$", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")
#: What a value that is one from beginning to end looks like: PEM, a header's word, `password=…`, a CURVE key in Z85.
_TOLD = re.compile(
    r"-----BEGIN|\b(bearer|basic)\s+\S|(password|passwd|pwd|secret|token|key|credential)s?\s*[=:]\s*\S", re.IGNORECASE
)
_Z85 = re.compile(r"[0-9A-Za-z.:+=^!/*?&<>()\[\]{}@%$#-]{40}")
#: So long, with letters and digits and nothing that words have between them: a token of some kind.
_OPAQUE = re.compile(r"(?<![\w+/=.-])(?=[\w+/=.-]*[0-9])(?=[\w+/=.-]*[A-Za-z])[\w+/=.-]{20,}")
_SEGMENT = re.compile(r"(?<=/)(?=[\w+=.-]*[0-9])(?=[\w+=.-]*[A-Za-z])[\w+=.-]{20,}")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.*", re.DOTALL)  # one, or a list that begins with one
_WEB_HOST = re.compile(r"https?://[^/?#\s,@]*(?=[/?#]|$)", re.IGNORECASE)
_SHOWN = frozenset({"PATH"})


def settings(variables: Mapping[str, str]) -> list[dict[str, Any]]:
    """`{name, value, masked}` of each variable, by name; `masked` if its value is not, or not wholly, what is shown."""
    shown = ((name, value, masked(name, value)) for name, value in sorted(variables.items()))
    return [{"name": name, "value": told, "masked": told != value} for name, value, told in shown]


def masked(name: str, value: str) -> str:
    """The value, or as much of it as is no secret."""
    if not value.strip() or name in _SHOWN or _is_path(value):
        return value
    if _MEASURE.search(name) and _NUMBER.fullmatch(value):
        return value
    if _ADDRESS.fullmatch(value):
        return _address(value, secret=_NAME.search(name) is not None)
    if _NAME.search(name) or _TOLD.search(value) or _OPAQUE.search(value) or _is_z85(value):
        return MASK
    return re.sub(r"^[^\s@]*:[^\s@]*@", f"{MASK}@", value)  # user:password@host, as mail servers are named


def _address(value: str, *, secret: bool) -> str:
    """Without who signs in, and without what is asked; of a secret one the host alone: a webhook's path opens it."""
    anonymous = re.sub(r"://\S*@", f"://{MASK}@", value)
    if secret:
        host = _WEB_HOST.match(value)
        return f"{host.group()}/{MASK}" if host else MASK
    told = _SEGMENT.sub(MASK, re.sub(r"[?#]\S+", f"?{MASK}", anonymous))
    return MASK if _TOLD.search(told) else told


def _is_path(value: str) -> bool:
    """Whether it names a file that is there, or one that may be made in a folder that is."""
    path = Path(value)
    try:
        return path.is_absolute() and (os.path.lexists(path) or (len(path.parts) > 2 and path.parent.is_dir()))
    except (OSError, ValueError):
        return False


def _is_z85(value: str) -> bool:
    kinds = (r"[a-z]", r"[A-Z]", r"[0-9]")
    return _Z85.fullmatch(value) is not None and all(re.search(kind, value) for kind in kinds)
