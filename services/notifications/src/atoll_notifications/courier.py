"""Delivers mails that are committed: into the maildir, and by SMTP where that is set.

    row ─▶ file loop: tmp, fsync, rename, fsync ─▶ filed         the maildir never waits for a server,
     └───▶ send loop: one conversation, mail after mail ─▶ sent  and the bus for neither

Each step is done first and noted after, so a crash between the two repeats it: in the maildir under the same name,
which is the same mail; by SMTP with the same Message-ID, which a reader may see twice (at least once). Only a crash:
what a full disk would not let us note is kept in mind, and nothing else is sent before it could be noted.

Time-outs and waits: a mail that the server puts off (4xx) waits by itself, doubling; a server in trouble is left alone
for a while, doubling, whatever mails come in. A mail is given up after `give_up_seconds`, and refused for good at 5xx.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import structlog
from aiohttp import web

import atoll
from atoll_notifications import store, tracing
from atoll_notifications.maildir import Maildir
from atoll_notifications.metrics import Metrics
from atoll_notifications.postman import Outcome, Postman, ServerTroubleError, Verdict
from atoll_notifications.settings import Settings, Smtp

BATCH_MAILS_MAX = 32
"""In one look at the database, and in one conversation: some MB at the most."""
IDLE_SECONDS = 5.0
"""Between looks that no bell asked for. None should be needed: the bell rings for every mail."""
MAILDIR_PAUSE_SECONDS = (0.5, 30.0)
SERVER_PAUSE_SECONDS = (1.0, 60.0)
MAIL_PAUSE_SECONDS = (2.0, 900.0)
COUNT_SECONDS = 1.0
STOP_SECONDS = 2.0
"""For the delivery in hand; what is left waits in the database for the next start."""
_log = structlog.get_logger("atoll_notifications.courier")


class Courier:
    """`lifetime` runs it in an application; `ring` tells it of a mail, from any thread."""

    def __init__(self, database: atoll.Database, maildir: Maildir, settings: Settings, metrics: Metrics) -> None:
        self._database = database
        self._maildir = maildir
        self._settings = settings
        self._metrics = metrics
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bells = {"maildir": asyncio.Event(), "smtp": asyncio.Event()}
        self._trouble: dict[str, str] = {}
        self._failures: Counter[str] = Counter()
        self._unnoted: tuple[store.Mail, Verdict] | None = None
        self._stopping = asyncio.Event()

    def ring(self) -> None:
        """A mail is about to be committed. Any thread; before the start it does nothing, which is soon enough."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ring)

    def degraded(self) -> list[str]:
        """What does not work now, for /ready."""
        return [f"{channel}: {why}" for channel, why in sorted(self._trouble.items())]

    async def lifetime(self, _app: web.Application) -> AsyncIterator[None]:
        """Runs between the opening and the closing of the database."""
        self._loop = asyncio.get_running_loop()
        running = [asyncio.create_task(each, name=name) for name, each in self._loops()]
        yield
        self._stopping.set()
        self._ring()
        _, late = await asyncio.wait(running, timeout=STOP_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _loops(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        loops: list[tuple[str, Coroutine[Any, Any, None]]] = [
            ("courier: maildir", self._until_stopped("maildir", self._file_some, MAILDIR_PAUSE_SECONDS)),
            ("courier: count", self._count_loop()),
        ]
        if self._settings.smtp is not None:
            smtp = self._settings.smtp
            loops.append(
                ("courier: smtp", self._until_stopped("smtp", lambda: self._send_some(smtp), SERVER_PAUSE_SECONDS))
            )
        return loops

    def _ring(self) -> None:
        for bell in self._bells.values():
            bell.set()

    # ---- one channel -------------------------------------------------------------------------------------------

    async def _until_stopped(
        self, channel: str, deliver_some: Callable[[], Awaitable[float]], pause_seconds: tuple[float, float]
    ) -> None:
        """Delivers, and waits for the bell or for what `deliver_some` says; after a failure longer, bell or not."""
        while not self._stopping.is_set():
            self._bells[channel].clear()
            try:
                wait = await deliver_some()
            except Exception as error:  # none of them may end the loop: mail would stop without a word
                self._note(channel, error)
                await self._sleep(_backoff(pause_seconds, self._failures[channel]))
                self._failures[channel] += 1
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._bells[channel].wait()

    def _note(self, channel: str, error: Exception) -> None:
        why = str(error) or type(error).__name__
        expected = isinstance(error, OSError | ServerTroubleError | atoll.AtollError)
        if self._trouble.get(channel) != why:  # once a reason, not once a try
            _log.warning(
                "mail can not be delivered now", channel=channel, why=why, exc_info=None if expected else error
            )
        self._trouble[channel] = why

    def _goes(self, channel: str) -> None:
        """It was seen to work, or nothing is left that shows the opposite. Time alone mends no trouble."""
        self._failures[channel] = 0
        if self._trouble.pop(channel, None) is not None:
            _log.info("mail is delivered again", channel=channel)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _look(self, read: Callable[[atoll.Transaction], list[store.Mail]]) -> list[store.Mail]:
        """Reads behind the commit that rang the bell: the writer thread does one thing after the other."""
        return await self._database.write(read)

    # ---- the maildir -------------------------------------------------------------------------------------------

    async def _file_some(self) -> float:
        """Files a batch; for how long to wait then. Raises OSError, AtollError."""
        mails = await self._look(lambda tx: store.to_file(tx, BATCH_MAILS_MAX))
        done: list[store.Mail] = []
        try:
            for mail in mails:
                with tracing.delivering(mail, "maildir"):
                    await asyncio.to_thread(self._file, mail)
                self._metrics.counted("maildir", "delivered")
                done.append(mail)
        finally:  # where the disk fills in the middle: a reader may delete what is there, and it must not come again
            if done:
                await self._database.write(lambda tx: _filed(tx, done))
        self._goes("maildir")
        return 0 if len(mails) == BATCH_MAILS_MAX else IDLE_SECONDS

    def _file(self, mail: store.Mail) -> None:
        try:
            self._maildir.deliver(mail.name, mail.message)
        except OSError:
            self._metrics.counted("maildir", "failed")
            raise

    # ---- SMTP --------------------------------------------------------------------------------------------------

    async def _send_some(self, smtp: Smtp) -> float:
        """Sends a batch in one conversation; for how long to wait then. Raises ServerTroubleError, AtollError."""
        await self._note_last()
        mails = await self._look(lambda tx: store.to_send(tx, time.time(), BATCH_MAILS_MAX))
        if not mails:
            return await self._until_next()
        try:
            async with Postman(smtp, self._settings.sender) as postman:
                for mail in mails:
                    if self._stopping.is_set():
                        break
                    await self._send(postman, mail)
        except ServerTroubleError as trouble:
            self._metrics.counted("smtp", "failed")
            await self._give_up_old(smtp, str(trouble))
            raise
        self._goes("smtp")
        return 0.0

    async def _until_next(self) -> float:
        """Until the next mail that was put off; a bell comes sooner for a new one."""
        next_at = await self._database.read(store.next_send)
        if next_at is None:
            self._goes("smtp")
            return IDLE_SECONDS
        return min(IDLE_SECONDS, max(0.05, next_at - time.time()))

    async def _send(self, postman: Postman, mail: store.Mail) -> None:
        """One try for one mail, noted. On trouble the mail is put off too: if it is the cause, others go first."""
        with tracing.delivering(mail, "smtp") as span:
            try:
                verdict = await postman.send(mail.recipient, mail.message)
            except ServerTroubleError as trouble:
                await self._put_off(mail, str(trouble))
                raise
            if verdict.outcome is not Outcome.SENT:
                tracing.failed(span, verdict.said)
        self._unnoted = mail, verdict
        await self._note_last()

    async def _note_last(self) -> None:
        """The last answer of the server, if it is not on the disk yet. Raises AtollError: then it stays to be noted."""
        if self._unnoted is not None:
            await self._noted(*self._unnoted)
            self._unnoted = None

    async def _noted(self, mail: store.Mail, verdict: Verdict) -> None:
        match verdict.outcome:
            case Outcome.SENT:
                await self._database.write(lambda tx: store.sent(tx, mail.order_id, verdict.said))
                self._metrics.counted("smtp", "delivered")
            case Outcome.REFUSED:
                await self._database.write(lambda tx: store.refused(tx, mail.order_id, verdict.said))
                self._metrics.counted("smtp", "refused")
                _log.error(
                    "mail refused for good", mail=mail.name, order_id=mail.order_id, said=verdict.said, alarm=True
                )
            case Outcome.LATER:
                await self._put_off(mail, verdict.said)
                self._metrics.counted("smtp", "deferred")
                _log.info("mail put off by the server", mail=mail.name, order_id=mail.order_id, said=verdict.said)
                assert self._settings.smtp is not None, "only SMTP puts off"
                await self._give_up_old(self._settings.smtp, verdict.said, mail)

    async def _put_off(self, mail: store.Mail, said: str) -> None:
        next_at = time.time() + _backoff(MAIL_PAUSE_SECONDS, mail.tries)
        await self._database.write(lambda tx: store.put_off(tx, mail.order_id, said, next_at))

    async def _give_up_old(self, smtp: Smtp, said: str, mail: store.Mail | None = None) -> None:
        """Gives up what has been owed for too long: this mail, or (the server is in trouble) any. Only after a try."""
        before = time.time() - smtp.give_up_seconds
        only = mail.order_id if mail else None
        for order_id in await self._database.write(lambda tx: store.give_up(tx, before, said, only)):
            self._metrics.counted("smtp", "given_up")
            _log.error("mail given up", order_id=order_id, said=said, alarm=True)

    # ---- what is left ------------------------------------------------------------------------------------------

    async def _count_loop(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(atoll.AtollError):
                self._metrics.show(await self._database.read(store.counts))
            await self._sleep(COUNT_SECONDS)


def _filed(tx: atoll.Transaction, mails: list[store.Mail]) -> None:
    now = time.time()
    for mail in mails:
        store.filed(tx, mail.order_id, now)


def _backoff(bounds_seconds: tuple[float, float], failures: int) -> float:
    first, most = bounds_seconds
    wait: float = min(most, first * 2 ** min(failures, 20))
    return wait * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
