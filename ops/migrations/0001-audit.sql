-- The operators' record: who did what to which instance, why, and how it ended. Rows are only ever added and ended.
CREATE TABLE audit (
    id           INTEGER PRIMARY KEY,
    at           REAL NOT NULL,               -- seconds since the epoch
    who          TEXT NOT NULL,               -- a token's subject, or local:<uid>
    act          TEXT NOT NULL,               -- kill, stop, …, dlq.replay
    target       TEXT NOT NULL,               -- orders/1, or a group
    reason       TEXT NOT NULL,
    operation_id TEXT NOT NULL UNIQUE,
    trace_id     TEXT,
    result       TEXT,                        -- NULL while it runs
    ended_at     REAL
) STRICT;

CREATE INDEX audit_unended ON audit (at) WHERE result IS NULL;
