-- A row a mail, which is a row an order: an order ends once. Times are RFC 3339, UTC.
CREATE TABLE mails (
  order_id      TEXT    PRIMARY KEY,
  name          TEXT    NOT NULL UNIQUE,             -- from the event's id: file name, Message-ID
  topic         TEXT    NOT NULL,
  recipient     TEXT    NOT NULL,
  traceparent   TEXT,                                -- of the event: delivery is part of the order's trace
  message       BLOB,                                -- the bytes to deliver; NULL once nothing is left to do with them
  made_at       REAL    NOT NULL,                    -- Unix seconds, this host's clock, as are those below
  filed_at      REAL,                                -- when it lay in the maildir; NULL: it does not yet
  smtp          TEXT    NOT NULL CHECK (smtp IN ('off', 'due', 'sent', 'refused', 'given_up')),
  smtp_tries    INTEGER NOT NULL DEFAULT 0,
  smtp_next_at  REAL    NOT NULL DEFAULT 0,          -- not before
  smtp_said     TEXT,                                -- what the server said last
  CHECK (message IS NOT NULL OR (filed_at IS NOT NULL AND smtp <> 'due'))
) STRICT;

-- What there is to do: small however many mails there are.
CREATE INDEX mails_to_file ON mails (made_at) WHERE filed_at IS NULL;
CREATE INDEX mails_to_send ON mails (smtp_next_at) WHERE smtp = 'due';
-- What an operator asks for.
CREATE INDEX mails_refused ON mails (smtp) WHERE smtp IN ('refused', 'given_up');
