-- Orders and returns: what a client sent in, once per owner and invoice number, and where it stands.
-- Money is in ten-thousandths. Times are UTC: `placed_at` is the client's (RFC 3339), `*_ms` are ours, in ms since 1970.
CREATE TABLE invoices (
  seq         INTEGER PRIMARY KEY AUTOINCREMENT,   -- the order of lists and their cursors; never re-used
  id          TEXT    NOT NULL UNIQUE,
  kind        TEXT    NOT NULL CHECK (kind IN ('order', 'return')),
  owner       TEXT    NOT NULL,
  invoice     TEXT    NOT NULL,
  customer    TEXT,
  country     TEXT    NOT NULL,
  placed_at   TEXT    NOT NULL,
  lines       TEXT    NOT NULL,                    -- JSON: read and written as a whole, never searched
  total       INTEGER NOT NULL CHECK (total >= 0),
  units       INTEGER NOT NULL CHECK (units > 0),
  status      TEXT    NOT NULL,
  reason      TEXT,
  detail      TEXT,
  accepted_ms INTEGER NOT NULL,
  deadline_ms INTEGER,                             -- orders only: cancelled then, if still `placed`
  UNIQUE (kind, owner, invoice),
  CHECK (kind = 'order'  AND status IN ('placed', 'confirmed', 'cancelled') AND deadline_ms IS NOT NULL
      OR kind = 'return' AND status IN ('received', 'refunded') AND deadline_ms IS NULL),
  CHECK ((status = 'cancelled') = (reason IS NOT NULL))
) STRICT;

CREATE INDEX invoices_by_owner    ON invoices (kind, owner, seq);
CREATE INDEX invoices_by_customer ON invoices (kind, customer, seq);
CREATE INDEX invoices_by_status   ON invoices (kind, status, seq);
CREATE INDEX invoices_open        ON invoices (deadline_ms) WHERE status = 'placed';

-- What an operator asks for by name.
CREATE VIEW orders  AS SELECT * FROM invoices WHERE kind = 'order';
CREATE VIEW returns AS SELECT * FROM invoices WHERE kind = 'return';
