"""The mails that a fleet has written, read from its maildir by the standard library."""

from __future__ import annotations

import email
import email.policy
import re
from email.message import EmailMessage

from fleet import Fleet


def mails(shop: Fleet) -> dict[str, list[EmailMessage]]:
    """Every mail in the maildir, by the order that it is about."""
    found: dict[str, list[EmailMessage]] = {}
    for folder in ("new", "cur"):
        for path in (shop.state / "data" / "notifications-1" / "maildir" / folder).iterdir():
            message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            assert isinstance(message, EmailMessage)
            assert message["Message-ID"] == f"<{path.name}@notifications.atoll.invalid>"
            order = re.search(r"^Order number: (\S+)\r?$", message.get_content(), re.MULTILINE)
            assert order, f"{path.name} names no order:\n{message}"
            found.setdefault(order.group(1), []).append(message)
    return found


def undelivered(shop: Fleet) -> int:
    """Mails that are committed and not yet everywhere that they are to go."""
    with shop.database("notifications") as database:
        return int(database.execute("SELECT count(*) FROM mails WHERE message IS NOT NULL").fetchone()[0])
