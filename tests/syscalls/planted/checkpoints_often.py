"""A broker that checkpoints after 2 KB instead of 16 MB, so that a short script passes through it."""

from __future__ import annotations

from atoll_broker import storage_sqlite

assert storage_sqlite.CHECKPOINT_BYTES > 2_048, "what this changes is gone: plant it anew"
storage_sqlite.CHECKPOINT_BYTES = 2_048  # type: ignore[misc]
