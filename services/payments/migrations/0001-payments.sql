-- Where each order stands. Money is in ten-thousandths; `amount` is null until the order's total is known.
CREATE TABLE orders (
  order_id TEXT    PRIMARY KEY,
  status   TEXT    NOT NULL CHECK (status IN ('due', 'awaited', 'captured', 'declined', 'void', 'refunded')),
  amount   INTEGER CHECK (amount >= 0),
  CHECK (amount IS NOT NULL OR status IN ('awaited', 'void'))
) STRICT, WITHOUT ROWID;

-- Money taken: at most once an order.
CREATE TABLE payments (
  payment_id TEXT    PRIMARY KEY,
  order_id   TEXT    NOT NULL UNIQUE REFERENCES orders (order_id),
  amount     INTEGER NOT NULL CHECK (amount >= 0)
) STRICT, WITHOUT ROWID;

-- Money given back: at most once an order or a return (`reference`).
CREATE TABLE refunds (
  refund_id TEXT    PRIMARY KEY,
  reference TEXT    NOT NULL UNIQUE,
  amount    INTEGER NOT NULL CHECK (amount >= 0),
  reason    TEXT    NOT NULL CHECK (reason IN ('order_cancelled', 'return'))
) STRICT, WITHOUT ROWID;
