"""Request targets: one reading of a path, for the gateway and for the service behind it.

Path tricks live on two parties reading one target differently: `a%2f..%2f..%2fadmin` is one segment to a router that
splits first and five to one that decodes first. So the target is taken apart once, anything that two parsers could
read differently is refused, and what goes on to the service is not the client's text but is written anew from the
segments that were matched.

    target  /stock/WHITE%20MUG?limit=5
    becomes segments ("stock", "WHITE MUG"), query "limit=5"; forwarded as /stock/WHITE%20MUG?limit=5
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from .problems import Problem

# RFC 3986 pchar and "/"; a "%" only before two hex digits. Backslash, control and non-ASCII characters fall out here.
_PATH = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
# Clients send brackets and bars unquoted in queries; only what could end the request line or start a fragment is out.
_QUERY = re.compile(r"[!-\"$-~]*")
# After ONE decoding: separators, and percent signs that a second decoding would turn into separators or dots.
_SEPARATORS = re.compile(r"[/\\\x00-\x1f\x7f]|%(?:2f|5c|2e|00|25)", re.IGNORECASE)
_SAFE = "!$&'()*+,;=:@-._~"


class Target(NamedTuple):
    """A request target that reads the same to everybody."""

    segments: tuple[str, ...]  # decoded; none empty but the last, for a path that ends in "/"
    query: str  # as sent, without "?"

    @property
    def path(self) -> str:
        """The path written anew from the segments."""
        return "/" + "/".join(quote(segment, safe=_SAFE) for segment in self.segments)

    @property
    def path_and_query(self) -> str:
        """What is sent to the service."""
        return f"{self.path}?{self.query}" if self.query else self.path


def parse(raw: str) -> Target:
    """Takes a raw request target apart; raises Problem 400 for one that could be read in two ways."""
    path, _, query = raw.partition("?")
    if not _PATH.fullmatch(path):
        raise _refused("characters or percent signs that a path may not hold")
    if not _QUERY.fullmatch(query):
        raise _refused("characters that a query may not hold")
    parts = path[1:].split("/")
    if "" in parts[:-1]:
        raise _refused("an empty segment")
    return Target(tuple(map(_segment, parts)), query)


def _segment(raw: str) -> str:
    """One segment, decoded exactly once."""
    if "%" not in raw and "." not in raw:
        return raw
    try:
        text = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise _refused("a segment that is not UTF-8") from None
    if _SEPARATORS.search(text):
        raise _refused("an encoded separator")
    # `..;x` is `..` to servers that know path parameters.
    if text.partition(";")[0] in {".", ".."}:
        raise _refused("a dot segment")
    return text


def _refused(what: str) -> Problem:
    return Problem(400, "bad_path", f"the request target holds {what}", field="path")
