"""What becomes a mail, and that an order has one."""

import email
import email.policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from support import CANCELLED, CONFIRMED, Bus, cancelled, confirmed, settings

import atoll
from atoll_notifications import store
from atoll_notifications.handlers import subscriptions
from atoll_notifications.settings import Smtp


async def mails(bus: Bus) -> dict[str, tuple[store.Mail, EmailMessage]]:
    """What waits for the maildir, by order."""
    found = await bus.database.read(lambda reader: store.to_file(reader, 100))
    read = [(mail, email.message_from_bytes(mail.message, policy=email.policy.default)) for mail in found]
    return {mail.order_id: (mail, message) for mail, message in read if isinstance(message, EmailMessage)}


async def test_each_end_of_an_order_is_told(bus: Bus) -> None:
    await bus.deliver(CONFIRMED, "o-1", confirmed(), id="e-1", traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    await bus.deliver(CANCELLED, "o-2", cancelled(customer=None), id="e-2")
    found = await mails(bus)
    mail, message = found["o-1"]
    assert (mail.name, mail.recipient, mail.traceparent) == (
        "e-1", "17850@customers.invalid", "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    )  # fmt: skip
    assert "Total: 15.30" in message.get_content()
    mail, message = found["o-2"]
    assert (mail.name, mail.recipient) == ("e-2", "guest@customers.invalid")
    assert "the payment was declined" in message.get_content()
    assert "101.00 is above 100.00" in message.get_content()


async def test_an_order_has_one_mail_and_a_second_is_refused_loudly(bus: Bus) -> None:
    await bus.deliver(CONFIRMED, "o-1", confirmed())
    for topic, data in ((CONFIRMED, confirmed()), (CANCELLED, cancelled())):
        with pytest.raises(atoll.Reject, match="has had its mail"):
            await bus.deliver(topic, "o-1", data)
    assert await bus.count("SELECT count(*) FROM mails") == 1


async def test_what_can_not_be_told_is_refused_and_leaves_nothing(bus: Bus) -> None:
    with pytest.raises(atoll.Reject, match="expected a decimal"):
        await bus.deliver(CONFIRMED, "o-1", confirmed(total="x"))
    with pytest.raises(atoll.Reject, match="RFC 3339"):
        await bus.deliver(CANCELLED, "o-1", cancelled(), time="now")
    assert await bus.count("SELECT count(*) FROM mails") == 0


async def test_smtp_owes_what_is_made_while_it_is_set(bus: Bus, tmp_path: Path) -> None:
    await bus.deliver(CONFIRMED, "o-1", confirmed())
    rang: list[None] = []
    with_smtp = settings(tmp_path, Smtp(host="127.0.0.1", port=25))
    other = Bus(bus.database, subscriptions(with_smtp, lambda: rang.append(None)))
    await other.deliver(CONFIRMED, "o-2", confirmed())
    assert await bus.count("SELECT group_concat(order_id || smtp) FROM mails ORDER BY order_id") == "o-1off,o-2due"
    assert len(rang) == 1
