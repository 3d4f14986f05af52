"""A notice as an RFC 5322 message. Pure: the same notice and event give the same bytes."""

from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from atoll_notifications.domain import Notice, mail_name, recipient

HOST = "notifications.atoll.invalid"
_LINE_MAX = 76


def compose(notice: Notice, event_id: str, event_time: str, sender: str) -> bytes:
    """The message, lines ending in CRLF, ASCII alone, so that any server takes it.

    `event_time` is RFC 3339 with an offset; ValueError if it is not, or has no place in a UTC calendar.
    """
    message = EmailMessage(policy=SMTP)
    message["Date"] = format_datetime(_utc(event_time))
    message["From"] = sender
    message["To"] = recipient(notice.customer)
    message["Subject"] = notice.subject
    message["Message-ID"] = f"<{mail_name(event_id)}@{HOST}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday answers
    text = "\n".join(notice.text()) + "\n"
    plain = text.isascii() and max(map(len, text.split("\n"))) <= _LINE_MAX
    message.set_content(text, charset="utf-8", cte="7bit" if plain else "quoted-printable")
    return message.as_bytes()


def _utc(event_time: str) -> datetime:
    try:
        moment = datetime.fromisoformat(event_time)
        if moment.tzinfo is None:
            raise ValueError("no offset")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"time {event_time[:40]!r}: expected RFC 3339 with an offset: {error}") from None
