"""HTTP and the first answer of a WebSocket, exactly as an attacker would write them: no header but those given.

A browser would refuse to send most of what the security tests need (another Origin, another Host, two cookies), and a
client library would add what it thinks is missing.
"""

from __future__ import annotations

import base64
import http.client
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

#: Where Streamlit's page and server talk.
STREAM = "/_stcore/stream"


@dataclass(frozen=True)
class Reply:
    """An answer as it came: status, headers in their order (names lower case), body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str

    def header(self, name: str) -> str:
        """A header's value, several joined by a comma; "" if there is none."""
        return ", ".join(value for key, value in self.headers if key == name)

    def set_cookies(self) -> list[str]:
        """Every Set-Cookie line."""
        return [value for key, value in self.headers if key == "set-cookie"]


def send(
    base: str, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"", seconds: float = 15
) -> Reply:
    """One request with `Host` as in `base` unless `headers` name another ("" for none at all)."""
    address = urlsplit(base)
    sent = {"Host": address.netloc} | dict(headers or {})
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=seconds)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            if value:
                connection.putheader(name, value)
        if body or method == "POST":
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        answer = connection.getresponse()
        text = "" if answer.status == 101 else answer.read().decode(errors="replace")
        return Reply(answer.status, tuple((k.lower(), v) for k, v in answer.getheaders()), text)
    finally:
        connection.close()


def knock(base: str, headers: Mapping[str, str], path: str = STREAM) -> Reply:
    """Ask for the WebSocket; 101 means that whoever asked is in. The connection is closed at once."""
    key = base64.b64encode(os.urandom(16)).decode()
    asked = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key}
    return send(base, "GET", path, asked | dict(headers))
