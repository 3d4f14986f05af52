"""The small world of the model: bounds so low that each of them is reached within a few steps."""

from __future__ import annotations

from typing import Any, Final

from bus_helpers import CANCELLED, CAPTURED, PLACED, SCHEMA

HEARTBEAT: Final = 1.0
EVENT_BYTES_MAX: Final = 1024
BATCH_EVENTS_MAX: Final = 4
BATCH_BYTES_MAX: Final = 4096
PUBLISH_EVENTS_MAX: Final = 6
PENDING_EVENTS_MAX: Final = 10
PENDING_BYTES_MAX: Final = 8192
LOG_BYTES_MAX: Final = 16_384
LOG_BYTES_KEPT: Final = 8000
LOG_EVENTS_KEPT: Final = 24
LOG_SECONDS_KEPT: Final = 30
DISK_FULL_SECONDS: Final = 1.0
LEASE_KEPT_SECONDS: Final = 0.25
WINDOW_EVENTS_MAX: Final = 6
DEAD_LETTERS_MAX: Final = 8
SESSIONS_PER_IDENTITY_MAX: Final = 2
LEASE: Final = 2.0
LEASES_MAX: Final = 10
ATTEMPTS_MAX: Final = 3
BACKOFF: Final = (1.0, 4.0)
IN_FLIGHT_MAX: Final = 4
TAP_EVENTS_MAX: Final = 6
READ_EVENTS_MAX: Final = 4
#: Events a second that an outbox may publish, and that a group is sent.
PUBLISH_RATES: Final = {"bank": 3.0}
GROUP_RATES: Final = {"mail": 8.0}

MESH: Final = f"""
[grant.shop]
publish = ["shop.*"]
announce = ["/shop"]
[grant.bank]
publish = ["bank.*"]
events_per_second_max = {PUBLISH_RATES["bank"]}
[grant.auth]
announce = ["/auth"]
public = true
put = ["keys", "revocations"]
[grant.gateway]
watch = ["registry", "keys", "revocations"]
[grant.control]
watch = ["registry"]
admin = true
tap = ["shop.*", "bank.*"]
[group_defaults]
lease_seconds = {LEASE}
attempts_max = {ATTEMPTS_MAX}
backoff_seconds = [{BACKOFF[0]}, {BACKOFF[1]}]
in_flight_max = {IN_FLIGHT_MAX}
[group.bank]
part = "bank"
topics = ["{PLACED}", "{CANCELLED}"]
[group.mail]
part = "mail"
topics = ["{PLACED}"]
on_dead = "skip"
events_per_second_max = {GROUP_RATES["mail"]}
[bus]
heartbeat_seconds = {HEARTBEAT}
event_bytes_max = {EVENT_BYTES_MAX}
batch_events_max = {BATCH_EVENTS_MAX}
batch_bytes_max = {BATCH_BYTES_MAX}
publish_events_max = {PUBLISH_EVENTS_MAX}
publish_bytes_max = {PENDING_BYTES_MAX}
pending_events_max = {PENDING_EVENTS_MAX}
pending_bytes_max = {PENDING_BYTES_MAX}
log_bytes_max = {LOG_BYTES_MAX}
log_bytes_kept = {LOG_BYTES_KEPT}
log_events_kept = {LOG_EVENTS_KEPT}
log_seconds_kept = {LOG_SECONDS_KEPT}
cache_bytes_max = 1024
window_events_max = {WINDOW_EVENTS_MAX}
dead_letters_max = {DEAD_LETTERS_MAX}
sessions_per_identity_max = {SESSIONS_PER_IDENTITY_MAX}
"""

#: group: (part, topics, does a dead letter park its key?)
GROUPS: Final = {
    "bank": ("bank", (PLACED, CANCELLED), True),
    "mail": ("mail", (PLACED,), False),
}
#: What each identity announces, and may.
ANNOUNCES: Final[dict[str, tuple[str, ...]]] = {"shop": (PLACED, CANCELLED), "bank": (CAPTURED,)}
WATCHES: Final[dict[str, tuple[str, ...]]] = {"gateway": ("registry", "keys", "revocations"), "control": ("registry",)}
PUTS: Final[dict[str, tuple[str, ...]]] = {"auth": ("keys", "revocations")}
ADMINS: Final = ("control",)
TAPS: Final[dict[str, tuple[str, ...]]] = {"control": ("shop.*", "bank.*")}
TAPS_MAX: Final = 8
PRODUCERS: Final[dict[str, tuple[str, ...]]] = {"shop": ("shop/box", "shop/two"), "bank": ("bank/box",)}
IDENTITIES: Final = ("shop", "bank", "mail", "auth", "gateway", "control")
SUBJECTS: Final = ("a", "b", "c", "d")
ENDPOINTS: Final[dict[str, dict[str, Any]]] = {
    "shop": {
        "url": "http://shop",
        "prefixes": ["/shop"],
        "routes": [{"method": "POST", "path": "/shop", "scope": "shop:write"}],
    },
    "auth": {
        "url": "http://auth",
        "prefixes": ["/auth"],
        "routes": [{"method": "GET", "path": "/auth/keys", "scope": None}],
    },
}
CONTRACTS: Final[dict[str, dict[str, Any]]] = {
    name: {"publishes": dict.fromkeys(topics, SCHEMA), "consumes": []} for name, topics in ANNOUNCES.items()
}
