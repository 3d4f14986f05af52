"""SMTP servers for the tests: aiosmtpd's real one, and misbehaving ones of a few lines."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Mailbox:
    """aiosmtpd's handler: keeps what it takes; `answers` are given first, one a mail, instead of taking it."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.taken: list[Envelope] = []
        self.sessions: list[Session] = []
        self.tries = 0

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - its name
        self.tries += 1
        if self.answers:
            return self.answers.pop(0)
        self.taken.append(envelope)
        self.sessions.append(session)
        return "250 taken"

    @property
    def ids(self) -> list[str]:
        """Message-IDs, as they came."""
        found = []
        for envelope in self.taken:
            content = envelope.content
            assert isinstance(content, bytes)
            found += [line for line in content.decode().splitlines() if line.startswith("Message-ID: ")]
        return found


@asynccontextmanager
async def serving(handler: Any, port: int = 0, **options: Any) -> AsyncIterator[int]:
    """An aiosmtpd server on loopback; its port."""
    tls = options.pop("implicit_tls", None)

    def make() -> SMTP:
        return SMTP(handler, hostname="mail.test", loop=asyncio.get_running_loop(), **options)

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def misbehaving(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A TCP server that says what `talk` says; its port."""
    open_now: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now.add(task)
        try:
            await talk(reader, writer)
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in open_now:
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Says nothing, and listens."""
    while await reader.read(4096):
        pass


async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A greeting without end, a byte at a time: always alive, never done."""
    for byte in b"220-" + b"x" * 400:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Polite until the message is there, then silent."""
    writer.write(b"220 mail.test\r\n")
    in_data = False
    while line := await reader.readline():
        if in_data:
            continue
        in_data = line.upper().startswith(b"DATA")
        writer.write(b"354 go on\r\n" if in_data else b"250 ok\r\n")


async def turn_away(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Refuses the conversation at once."""
    writer.write(b"554 no mail here\r\n")
    await writer.drain()


async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greets, and then refuses whoever says who he is, as a server does with an address on a block list."""
    writer.write(b"220 mail.test\r\n")
    while line := await reader.readline():
        helo = line.upper().startswith((b"EHLO", b"HELO"))
        writer.write(b"550 you are on a list\r\n" if helo else b"250 ok\r\n")


def authenticator(user: bytes, password: bytes) -> Any:
    def check(_server: object, _session: object, _envelope: object, _mechanism: str, data: object) -> AuthResult:
        good = isinstance(data, LoginPassword) and (data.login, data.password) == (user, password)
        return AuthResult(success=good, handled=good)

    return check


def certificate(folder: Path, name: str = "127.0.0.1") -> tuple[ssl.SSLContext, Path]:
    """A server's context with a certificate for `name`, and the file that a client has to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, secret = folder / "cert.pem", folder / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, secret)
    return context, public
