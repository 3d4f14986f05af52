"""No fault: checkpoints come after a few commits instead of 16 MiB, so that cuts hit them."""

from __future__ import annotations

from atoll_broker import storage_sqlite

assert hasattr(storage_sqlite, "CHECKPOINT_BYTES"), "what this changes is gone: plant it anew"
storage_sqlite.CHECKPOINT_BYTES = 60_000
