"""One SMTP conversation: connect, perhaps STARTTLS and login, then mail after mail.

What can go wrong has two kinds, and mixing them up loses mail or sends it for ever:

    the server's affair    no connection, a hang, 421, a certificate, a HELO, login or sender refused
                           → ServerTroubleError
    the mail's affair      the server's answer to RCPT or DATA of this one: 4xx later, 5xx never → Verdict

An answer to MAIL is about the sender, who is the same for all, unless it is 552: this message is too large.

`aiosmtplib` because cancelling ends a conversation at once: a server that sends one byte every few seconds passes every
time-out of a socket, and a thread in `smtplib` can not be stopped. Here each mail has one deadline, for all its bytes.
"""

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from email.utils import parseaddr
from enum import Enum
from types import TracebackType
from typing import Self

import aiosmtplib

from atoll_notifications.settings import Smtp

_SAID_MAX = 300
_SHUTTING_DOWN = 421
_TOO_LARGE = 552


class Outcome(Enum):
    SENT = "sent"
    LATER = "later"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the server makes of one mail, in its own words."""

    outcome: Outcome
    said: str


class ServerTroubleError(Exception):
    """Nothing can be handed over now, whichever mail it is. Try again later; no mail is to blame."""


class Postman:
    """A conversation, as a context manager. Raises ServerTroubleError on entering and from `send`."""

    def __init__(self, settings: Smtp, sender: str) -> None:
        self._settings = settings
        self._sender = parseaddr(sender)[1]
        secure = settings.security != "none"
        self._client = aiosmtplib.SMTP(
            hostname=settings.host,
            port=settings.port,
            use_tls=settings.security == "tls",
            start_tls=settings.security == "starttls",
            tls_context=ssl.create_default_context(cafile=settings.ca_file) if secure else None,
            username=settings.login.user if settings.login else None,
            password=settings.login.password if settings.login else None,
            timeout=settings.timeout_seconds,
        )

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                await self._client.connect()
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
            self._client.close()
            raise ServerTroubleError(_text(error)) from error
        except BaseException:
            self._client.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """QUIT where there is somebody to say it to; a second at most."""
        with contextlib.suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
            if kind is None and self._client.is_connected:
                async with asyncio.timeout(1):
                    await self._client.quit()
        self._client.close()

    async def send(self, recipient: str, message: bytes) -> Verdict:
        """Hands one mail over. After a time-out nobody knows whether the server has it: it is sent again."""
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                _, said = await self._client.sendmail(self._sender, [recipient], message)
            return Verdict(Outcome.SENT, said[:_SAID_MAX])
        except aiosmtplib.SMTPRecipientsRefused as error:
            return _verdict(error.recipients[0])
        except aiosmtplib.SMTPSenderRefused as error:
            if error.code != _TOO_LARGE:
                raise ServerTroubleError(_text(error)) from error
            return _verdict(error)
        except aiosmtplib.SMTPHeloError as error:  # said with the first mail, and of none: who we are is refused
            raise ServerTroubleError(_text(error)) from error
        except aiosmtplib.SMTPResponseException as error:
            return _verdict(error)
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise ServerTroubleError(_text(error)) from error


def _verdict(answer: aiosmtplib.SMTPResponseException) -> Verdict:
    if answer.code == _SHUTTING_DOWN or not 400 <= answer.code < 600:
        raise ServerTroubleError(_text(answer)) from answer
    outcome = Outcome.LATER if answer.code < 500 else Outcome.REFUSED
    return Verdict(outcome, f"{answer.code} {answer.message}"[:_SAID_MAX])


def _text(error: BaseException) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{error.code} {error.message}"[:_SAID_MAX]
    return f"{type(error).__name__}: {error}"[:_SAID_MAX]
