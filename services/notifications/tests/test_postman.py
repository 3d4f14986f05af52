"""One conversation with a real SMTP server, and whose fault it is when it goes wrong."""

import time
from pathlib import Path
from typing import Any

import pytest
from mailservers import (
    Mailbox,
    authenticator,
    certificate,
    drip,
    hang,
    misbehaving,
    serving,
    stranger,
    swallow,
    turn_away,
)  # fmt: skip

from atoll_notifications.postman import Outcome, Postman, ServerTroubleError, Verdict
from atoll_notifications.settings import Login, Smtp

SENDER = "Atoll shop <orders@shop.invalid>"
TO = "17850@customers.invalid"
MESSAGE = b"From: a\r\nMessage-ID: <e-1@x>\r\n\r\n.leading dot\r\n"


async def send(port: int, **more: Any) -> Verdict:
    settings = Smtp(host="127.0.0.1", port=port, **({"timeout_seconds": 3} | more))
    async with Postman(settings, SENDER) as postman:
        return await postman.send(TO, MESSAGE)


async def test_a_mail_arrives_as_it_is() -> None:
    mailbox = Mailbox()
    async with serving(mailbox) as port:
        assert (await send(port)).outcome is Outcome.SENT
    [envelope] = mailbox.taken
    assert (envelope.mail_from, envelope.rcpt_tos, envelope.content) == ("orders@shop.invalid", [TO], MESSAGE)


@pytest.mark.parametrize(
    ("answer", "outcome"), [("451 later", Outcome.LATER), ("550 never", Outcome.REFUSED), ("552 fat", Outcome.REFUSED)]
)
async def test_an_answer_to_the_mail_is_the_mails_affair(answer: str, outcome: Outcome) -> None:
    async with serving(Mailbox(answer)) as port:
        assert await send(port) == Verdict(outcome, answer)


@pytest.mark.parametrize(("answer", "outcome"), [("450 full", Outcome.LATER), ("550 who?", Outcome.REFUSED)])
async def test_so_is_one_to_its_recipient(answer: str, outcome: Outcome) -> None:
    class Picky(Mailbox):
        async def handle_RCPT(self, *_: object) -> str:  # noqa: N802 - aiosmtpd's name
            return answer

    async with serving(Picky()) as port:
        assert await send(port) == Verdict(outcome, answer)


async def test_a_refused_sender_is_no_mails_fault() -> None:
    class Picky(Mailbox):
        async def handle_MAIL(self, *_: object) -> str:  # noqa: N802 - aiosmtpd's name
            return "550 not from you"

    async with serving(Picky()) as port:
        with pytest.raises(ServerTroubleError, match="550 not from you"):
            await send(port)


async def test_421_is_the_servers_affair() -> None:
    async with serving(Mailbox("421 closing")) as port:
        with pytest.raises(ServerTroubleError, match="421"):
            await send(port)


async def test_nobody_there() -> None:
    with pytest.raises(ServerTroubleError):
        await send(9)


async def test_turned_away() -> None:
    async with misbehaving(turn_away) as port:
        with pytest.raises(ServerTroubleError, match="554 no mail here"):
            await send(port)


async def test_a_refused_helo_is_no_mails_fault() -> None:
    async with misbehaving(stranger) as port:
        with pytest.raises(ServerTroubleError, match="550 you are on a list"):
            await send(port)


@pytest.mark.parametrize("talk", [hang, drip, swallow])
async def test_a_server_that_does_not_come_to_the_point_is_left(talk: Any) -> None:
    async with misbehaving(talk) as port:
        began = time.monotonic()
        with pytest.raises(ServerTroubleError):
            await send(port, timeout_seconds=0.3)
        assert time.monotonic() - began < 3  # bounded: two deadlines of 0.3 s, on a busy machine


async def test_starttls(tmp_path: Path) -> None:
    mailbox = Mailbox()
    context, ca_file = certificate(tmp_path)
    async with serving(mailbox, tls_context=context, require_starttls=True) as port:
        assert (await send(port, security="starttls", ca_file=ca_file)).outcome is Outcome.SENT
    assert mailbox.sessions[0].ssl is not None


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # aiosmtpd: the whole line is TLS
async def test_tls_and_a_login(tmp_path: Path) -> None:
    mailbox = Mailbox()
    context, ca_file = certificate(tmp_path)
    options = {"implicit_tls": context, "authenticator": authenticator(b"shop", b"s3cret"), "auth_required": True,
               "auth_require_tls": False}  # fmt: skip
    async with serving(mailbox, **options) as port:
        login = Login("shop", "s3cret")
        assert (await send(port, security="tls", ca_file=ca_file, login=login)).outcome is Outcome.SENT
        with pytest.raises(ServerTroubleError, match="535"):
            await send(port, security="tls", ca_file=ca_file, login=Login("shop", "wrong"))
        with pytest.raises(ServerTroubleError, match="530"):
            await send(port, security="tls", ca_file=ca_file)
    assert len(mailbox.taken) == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_server_that_is_not_who_it_says_gets_nothing(tmp_path: Path, security: str) -> None:
    mailbox = Mailbox()
    context, ca_file = certificate(tmp_path, name="127.0.0.2")
    options: dict[str, Any] = {"tls_context": context} if security == "starttls" else {"implicit_tls": context}
    async with serving(mailbox, **options) as port:
        with pytest.raises(ServerTroubleError):
            await send(port, security=security)  # not trusted
        with pytest.raises(ServerTroubleError):
            await send(port, security=security, ca_file=ca_file)  # trusted, for another name
    assert not mailbox.taken


async def test_without_starttls_on_offer_nothing_goes_in_the_clear(tmp_path: Path) -> None:
    mailbox = Mailbox()
    _, ca_file = certificate(tmp_path)
    async with serving(mailbox) as port:
        with pytest.raises(ServerTroubleError):
            await send(port, security="starttls", ca_file=ca_file)
    assert not mailbox.taken
