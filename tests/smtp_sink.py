"""An SMTP server as a process that can be killed: `python smtp_sink.py PORT FILE` writes a Message-ID a line."""

from __future__ import annotations

import asyncio
import sys
from email import message_from_bytes
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session


class Sink:
    """Takes every mail."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - its name
        assert isinstance(envelope.content, bytes)
        with self._file.open("a") as out:
            out.write(f"{message_from_bytes(envelope.content)['Message-ID']}\n")
        return "250 taken"


async def main(port: int, file: Path) -> None:
    """Serve until it is killed; the first line on stdout is the port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Sink(file), loop=loop), "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
