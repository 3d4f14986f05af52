-- The broker's logs that events came from: a new disk under the broker is a new log, whose seqs begin again.
CREATE TABLE logs (
  number INTEGER PRIMARY KEY,
  log    TEXT NOT NULL UNIQUE
) STRICT;

-- Every event, as it came. Nothing is ever changed or deleted; each row's hash covers it and the row before.
CREATE TABLE events (
  position  INTEGER PRIMARY KEY,       -- 1, 2, 3 …: no holes
  log       INTEGER NOT NULL REFERENCES logs (number),
  seq       INTEGER NOT NULL,          -- in the broker's log
  stored_ms INTEGER NOT NULL,          -- Unix milliseconds, this host's clock
  source    TEXT    NOT NULL,          -- with id: the event's identity
  id        TEXT    NOT NULL,
  topic     TEXT    NOT NULL,
  subject   TEXT    NOT NULL,          -- the key
  event     BLOB    NOT NULL,          -- the CloudEvent's very bytes
  hash      BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_identity ON events (source, id);
CREATE INDEX events_seq ON events (log, seq);
CREATE INDEX events_key ON events (subject, log, seq);

-- What the bus should never do, and did.
CREATE TABLE violations (
  number   INTEGER PRIMARY KEY,
  at_ms    INTEGER NOT NULL,
  kind     TEXT    NOT NULL CHECK (kind IN ('ORDER', 'TWICE', 'SEQ')),
  log      INTEGER NOT NULL REFERENCES logs (number),
  seq      INTEGER NOT NULL,
  subject  TEXT    NOT NULL,
  text     TEXT    NOT NULL,
  UNIQUE (kind, log, seq, text)        -- a redelivery is no second violation
) STRICT;
