-- Every document that was counted, once. Money is in ten-thousandths.
CREATE TABLE documents (
  id      TEXT    PRIMARY KEY,
  kind    TEXT    NOT NULL CHECK (kind IN ('order', 'return')),
  country TEXT    NOT NULL,
  day     TEXT    NOT NULL,                       -- UTC date
  units   INTEGER NOT NULL,                       -- negative for a return, as is revenue
  revenue INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The sums, kept with every document so that reading them costs a row a key, however many documents there are.
CREATE TABLE totals (
  dimension TEXT    NOT NULL CHECK (dimension IN ('all', 'country', 'day', 'sku')),
  key       TEXT    NOT NULL,                     -- '' for 'all'
  orders    INTEGER NOT NULL,
  units     INTEGER NOT NULL,
  revenue   TEXT    NOT NULL,                     -- an integer as text: many large orders may pass 64 bits, beyond
  PRIMARY KEY (dimension, key)                    -- which SQLite adds in floating point without a word
) STRICT, WITHOUT ROWID;
