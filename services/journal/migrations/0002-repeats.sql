-- Known is what came from the same place of the log with the same bytes. An id that is used again is told, and keeps no
-- event out: else who publishes could hide one from the witness.
DROP INDEX events_identity;
CREATE INDEX events_identity ON events (source, id);
