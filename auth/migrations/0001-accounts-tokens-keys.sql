-- People and clients share one name space: a token's `sub` must mean one of them only.
CREATE TABLE accounts (
  name        TEXT PRIMARY KEY,
  kind        TEXT NOT NULL CHECK (kind IN ('user', 'client')),
  secret_hash TEXT NOT NULL,                        -- argon2id, with its parameters and salt
  role        TEXT CHECK (role IN ('viewer', 'operator', 'admin')),
  scope       TEXT,                                 -- of a client: what it may ask for
  created_at  INTEGER NOT NULL,                     -- times are seconds since 1970
  CHECK ((kind = 'user') = (role IS NOT NULL) AND (kind = 'client') = (scope IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- In the database, so that no command and no shell can lock everybody out.
CREATE TRIGGER last_admin_stays BEFORE DELETE ON accounts
WHEN OLD.role = 'admin' AND (SELECT count(*) FROM accounts WHERE role = 'admin') = 1
BEGIN
  SELECT RAISE(ABORT, 'last admin');
END;
CREATE TRIGGER last_admin_stays_admin BEFORE UPDATE OF role ON accounts
WHEN OLD.role = 'admin' AND NEW.role IS NOT 'admin' AND (SELECT count(*) FROM accounts WHERE role = 'admin') = 1
BEGIN
  SELECT RAISE(ABORT, 'last admin');
END;

-- Names that were sown once: an account that an operator removed must not grow again at the next start.
CREATE TABLE seeds (
  name TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- One login: a chain of refresh tokens, each usable once.
CREATE TABLE families (
  id       TEXT PRIMARY KEY,
  subject  TEXT NOT NULL,
  scope    TEXT NOT NULL,
  ended_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX families_of_subject ON families (subject);

CREATE TABLE refresh_tokens (
  jti               TEXT PRIMARY KEY,
  family            TEXT NOT NULL REFERENCES families ON DELETE CASCADE,
  expires_at        INTEGER NOT NULL,
  used_at           INTEGER,
  access_jti        TEXT NOT NULL,                  -- issued with it; revoked with the family
  access_expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_tokens_of_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);

CREATE TABLE revoked_tokens (
  jti        TEXT PRIMARY KEY,
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE revoked_subjects (
  name       TEXT PRIMARY KEY,
  not_before INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE signing_keys (
  kid          TEXT PRIMARY KEY,
  public       BLOB NOT NULL,
  private      BLOB,                                -- PEM; erased when the key retires
  created_at   INTEGER NOT NULL,
  published_at INTEGER,                             -- the broker has taken a key set with it
  active_at    INTEGER,                             -- signs since
  retired_at   INTEGER                              -- signs no more since
) STRICT, WITHOUT ROWID;

CREATE TABLE key_set (
  only    INTEGER PRIMARY KEY CHECK (only = 1),
  version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO key_set VALUES (1, 0);
