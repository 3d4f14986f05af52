"""All the SQL of notifications. Functions take the transaction that they work in; the caller owns the commit."""

from dataclasses import dataclass

import atoll


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail with something left to do."""

    order_id: str
    name: str
    topic: str
    recipient: str
    traceparent: str | None
    message: bytes
    made_at: float
    tries: int = 0
    """Of SMTP."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Mails by what is left to do, or went wrong for good."""

    to_file: int
    to_send: int
    refused: int
    given_up: int


def add(tx: atoll.Transaction, mail: Mail, *, by_smtp: bool) -> bool:
    """Adds a mail; False if its order has one already."""
    added = tx.execute(
        "INSERT INTO mails (order_id, name, topic, recipient, traceparent, message, made_at, smtp)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        mail.order_id,
        mail.name,
        mail.topic,
        mail.recipient,
        mail.traceparent,
        mail.message,
        mail.made_at,
        "due" if by_smtp else "off",
    )
    return added == 1


def to_file(reader: atoll.Reader, limit: int) -> list[Mail]:
    """The oldest mails that are not in the maildir yet."""
    found = reader.all(
        "SELECT order_id, name, topic, recipient, traceparent, message, made_at, smtp_tries"
        " FROM mails WHERE filed_at IS NULL ORDER BY made_at LIMIT ?",
        limit,
    )
    return [Mail(*row) for row in found]


def to_send(reader: atoll.Reader, now: float, limit: int) -> list[Mail]:
    """Mails that SMTP owes and may try now, those that have waited longest first."""
    found = reader.all(
        "SELECT order_id, name, topic, recipient, traceparent, message, made_at, smtp_tries"
        " FROM mails WHERE smtp = 'due' AND smtp_next_at <= ? ORDER BY smtp_next_at LIMIT ?",
        now,
        limit,
    )
    return [Mail(*row) for row in found]


def next_send(reader: atoll.Reader) -> float | None:
    """When the next mail may be tried by SMTP; None if none is owed."""
    row = reader.one("SELECT min(smtp_next_at) AS at FROM mails WHERE smtp = 'due'")
    return None if row is None else row["at"]


def filed(tx: atoll.Transaction, order_id: str, now: float) -> None:
    tx.execute("UPDATE mails SET filed_at = ? WHERE order_id = ?", now, order_id)
    _forget_message(tx, order_id)


def sent(tx: atoll.Transaction, order_id: str, said: str) -> None:
    _end_smtp(tx, order_id, "sent", said)


def refused(tx: atoll.Transaction, order_id: str, said: str) -> None:
    """The server will never take it."""
    _end_smtp(tx, order_id, "refused", said)


def give_up(tx: atoll.Transaction, made_before: float, said: str, order_id: str | None = None) -> list[str]:
    """Gives up what SMTP has owed since before then, or of that only one; a bounded number. Their orders' ids."""
    found = tx.all(
        "SELECT order_id FROM mails WHERE smtp = 'due' AND made_at < ? AND order_id = ifnull(?, order_id) LIMIT 100",
        made_before,
        order_id,
    )
    for row in found:
        _end_smtp(tx, row["order_id"], "given_up", said)
    return [row["order_id"] for row in found]


def put_off(tx: atoll.Transaction, order_id: str, said: str, next_at: float) -> None:
    """The server could not take it now."""
    tx.execute(
        "UPDATE mails SET smtp_tries = smtp_tries + 1, smtp_said = ?, smtp_next_at = ?"
        " WHERE order_id = ? AND smtp = 'due'",
        said,
        next_at,
        order_id,
    )


def counts(reader: atoll.Reader) -> Counts:
    """Each is an index of what is left: it costs what there is to do, not what was ever done."""
    row = reader.one(
        "SELECT (SELECT count(*) FROM mails WHERE filed_at IS NULL) AS to_file,"
        " (SELECT count(*) FROM mails WHERE smtp = 'due') AS to_send,"
        " (SELECT count(*) FROM mails WHERE smtp = 'refused') AS refused,"
        " (SELECT count(*) FROM mails WHERE smtp = 'given_up') AS given_up"
    )
    assert row is not None, "a SELECT without FROM has a row"
    return Counts(*row)


def _end_smtp(tx: atoll.Transaction, order_id: str, state: str, said: str) -> None:
    tx.execute(
        "UPDATE mails SET smtp = ?, smtp_tries = smtp_tries + 1, smtp_said = ? WHERE order_id = ? AND smtp = 'due'",
        state,
        said,
        order_id,
    )
    _forget_message(tx, order_id)


def _forget_message(tx: atoll.Transaction, order_id: str) -> None:
    """The bytes have gone everywhere that they had to: the row alone says that this order has had its mail."""
    tx.execute(
        "UPDATE mails SET message = NULL WHERE order_id = ? AND filed_at IS NOT NULL AND smtp <> 'due'", order_id
    )
