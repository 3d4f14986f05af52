"""The library's own tables in a service's database, as numbered migrations of the component `atoll`.

    atoll_producer     one row: who this outbox is, and the counter that numbers its events
    atoll_outbox       events that the broker has not acknowledged, and those it refused
    atoll_inbox        events whose effects are in this database
    atoll_idempotency  answers of HTTP requests that carried an Idempotency-Key

`atoll_producer.next_pseq` is the only source of event numbers. A row id is none: SQLite uses it again after a clean-up,
and then the broker takes a new event for an old one. `acked_pseq`, `acked_id` and `log` are what the broker last
confirmed; a broker that knows less, or another log, is not the one that holds our events.
"""

from __future__ import annotations

MIGRATIONS: tuple[tuple[int, str, str], ...] = (
    (
        1,
        "tables",
        """
CREATE TABLE atoll_producer (
  one         INTEGER PRIMARY KEY CHECK (one = 1),
  uuid        TEXT NOT NULL,
  service     TEXT,
  next_pseq   INTEGER NOT NULL,
  acked_pseq  INTEGER NOT NULL,
  acked_id    TEXT,
  log         TEXT
) STRICT;
CREATE TABLE atoll_outbox (
  pseq    INTEGER PRIMARY KEY,
  id      TEXT NOT NULL,
  topic   TEXT NOT NULL,
  event   BLOB NOT NULL,
  code    TEXT,
  field   TEXT,
  text    TEXT
) STRICT;
CREATE INDEX atoll_outbox_refused ON atoll_outbox (pseq) WHERE code IS NOT NULL;
CREATE TABLE atoll_inbox (
  source  TEXT NOT NULL,
  id      TEXT NOT NULL,
  seq     INTEGER NOT NULL,
  PRIMARY KEY (source, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX atoll_inbox_seq ON atoll_inbox (seq);
CREATE TABLE atoll_idempotency (
  subject     TEXT NOT NULL,
  key         TEXT NOT NULL,
  body_hash   TEXT NOT NULL,
  status      INTEGER NOT NULL,
  headers     TEXT NOT NULL,
  body        BLOB NOT NULL,
  expires_at  INTEGER NOT NULL,
  PRIMARY KEY (subject, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX atoll_idempotency_expires ON atoll_idempotency (expires_at);
""",
    ),
)
