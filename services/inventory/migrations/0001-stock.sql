-- What there is of each SKU. A row is made by the first movement; until then a SKU has the opening stock of the settings.
CREATE TABLE stock (
  sku       TEXT    PRIMARY KEY,
  opening   INTEGER NOT NULL CHECK (opening >= 0),
  available INTEGER NOT NULL CHECK (available >= 0),   -- opening + Σ movements
  reserved  INTEGER NOT NULL CHECK (reserved >= 0)     -- taken by orders and not released
) STRICT, WITHOUT ROWID;

-- Every unit that came or went, a row a line. `reference` is the order's, the return's or the adjustment's.
CREATE TABLE movements (
  seq       INTEGER PRIMARY KEY AUTOINCREMENT,
  kind      TEXT    NOT NULL CHECK (kind IN ('reserved', 'released', 'returned', 'adjusted')),
  reference TEXT    NOT NULL,
  line      INTEGER NOT NULL,
  sku       TEXT    NOT NULL REFERENCES stock (sku),
  quantity  INTEGER NOT NULL CHECK (quantity <> 0),
  reason    TEXT,
  UNIQUE (kind, reference, line),                      -- an effect happens once, whatever the bus delivers twice
  CHECK ((kind = 'reserved' AND quantity < 0) OR (kind IN ('released', 'returned') AND quantity > 0) OR kind = 'adjusted')
) STRICT;

CREATE INDEX movements_by_sku ON movements (sku);

-- What became of each order, those that took nothing included.
CREATE TABLE reservations (
  order_id TEXT PRIMARY KEY,
  status   TEXT NOT NULL CHECK (status IN ('reserved', 'rejected', 'released', 'void'))
) STRICT, WITHOUT ROWID;

-- Adjustments by reference: a request that is sent again changes nothing, one with other lines is refused.
CREATE TABLE adjustments (
  reference TEXT PRIMARY KEY,
  lines     TEXT NOT NULL                              -- JSON, to compare with
) STRICT, WITHOUT ROWID;
