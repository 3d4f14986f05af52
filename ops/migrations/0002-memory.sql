-- What control learnt from others and can show while they are away: a few values, each replaced by the next.
CREATE TABLE memory (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    at    REAL NOT NULL                       -- seconds since the epoch
) STRICT;

-- The audit is looked through by who, act and target, newest first, and for the last act on each target.
CREATE INDEX audit_by_target ON audit (target, id);
CREATE INDEX audit_by_who ON audit (who, id);
CREATE INDEX audit_by_act ON audit (act, id);
