"""What the tests expect of the system, written by hand: no product code imports this, and it reads none.

When a part, a topic or a group changes, this file changes with it, in the same commit, by somebody who meant it.
"""

from __future__ import annotations

#: Every part that the shop needs, with the folder it is built from.
PARTS = {
    "broker": "broker",
    "auth": "auth",
    "gateway": "gateway",
    "control": "ops",
    "orders": "services/orders",
    "inventory": "services/inventory",
    "payments": "services/payments",
    "sales": "services/sales",
    "notifications": "services/notifications",
    "journal": "services/journal",
}

#: Parts to look through, beside PARTS: no function of the shop needs them, and they are nobody on the bus.
LOOKERS = {"dashboard": "dashboard", "jaeger": "observability/jaeger"}

#: Services that use the SDK: inbox, outbox, spans of their own. The witness does without, and proves that one can.
SDK_SERVICES = ("orders", "inventory", "payments", "sales", "notifications")
#: All of them.
SERVICES = (*SDK_SERVICES, "journal")

#: The only code that two parts may both install.
SDKS = {"atoll": "sdk/atoll", "atoll_token": "sdk/atoll-token"}

#: Import name of each deployable -> its folder.
DEPLOYABLES = {
    "atoll_broker": "broker",
    "atoll_auth": "auth",
    "atoll_gateway": "gateway",
    "atoll_ops": "ops",
    "atoll_dashboard": "dashboard",
    "atoll_orders": "services/orders",
    "atoll_inventory": "services/inventory",
    "atoll_payments": "services/payments",
    "atoll_sales": "services/sales",
    "atoll_notifications": "services/notifications",
    "atoll_journal": "services/journal",
}

#: Who publishes what (topic -> publisher) ...
TOPICS = {
    "orders.order.placed.v1": "orders",
    "orders.order.confirmed.v1": "orders",
    "orders.order.cancelled.v1": "orders",
    "orders.return.received.v1": "orders",
    "orders.return.refunded.v1": "orders",
    "inventory.stock.reserved.v1": "inventory",
    "inventory.stock.rejected.v1": "inventory",
    "inventory.stock.released.v1": "inventory",
    "inventory.stock.adjusted.v1": "inventory",
    "payments.payment.captured.v1": "payments",
    "payments.payment.declined.v1": "payments",
    "payments.payment.refunded.v1": "payments",
}

#: ... and which group, of the service of the same name, listens to what.
GROUPS = {
    "orders": {
        "inventory.stock.rejected.v1",
        "payments.payment.captured.v1",
        "payments.payment.declined.v1",
        "payments.payment.refunded.v1",
    },
    "inventory": {"orders.order.placed.v1", "orders.order.cancelled.v1", "orders.return.refunded.v1"},
    "payments": {
        "orders.order.placed.v1",
        "orders.order.cancelled.v1",
        "orders.return.received.v1",
        "inventory.stock.reserved.v1",
    },
    "sales": {"orders.order.confirmed.v1", "orders.return.refunded.v1"},
    "notifications": {"orders.order.confirmed.v1", "orders.order.cancelled.v1"},
    "journal": set(TOPICS),
}

#: Route prefixes behind the gateway.
PREFIXES = {
    "/auth": "auth",
    "/ops": "control",
    "/orders": "orders",
    "/returns": "orders",
    "/stock": "inventory",
    "/sales": "sales",
}

#: In containers: networks, with who is on each. A service has one of its own, with no sibling; browsers see the front.
FRONT, COLLECTOR = "front", "jaeger"
_SHARED = {"gateway", "broker", "control", COLLECTOR}
CONTAINER_NETWORKS = {
    FRONT: {"gateway", "dashboard", COLLECTOR},
    "auth": {"auth", *_SHARED},
    "orders": {"orders", *_SHARED},
    "inventory": {"inventory", *_SHARED},
    "payments": {"payments", *_SHARED},
    "sales": {"sales", *_SHARED},
    "notifications": {"notifications", *_SHARED},
    "journal": {"journal", *_SHARED},
}
#: ... which ports the host shows, on 127.0.0.1 (each listens on the same inside), and on which the others listen.
PUBLISHED = {"gateway": 8080, "dashboard": 8501, COLLECTOR: 16686}
CONTAINER_PORT = 8000

# ---- one order is one trace --------------------------------------------------------------------------------------

#: A span's place: its service and its name.
Place = tuple[str, str]

DOOR: set[tuple[Place, Place]] = {
    (("demo", "POST"), ("gateway", "POST /orders")),
    (("gateway", "POST /orders"), ("gateway", "POST")),
    (("gateway", "POST"), ("orders", "POST /orders")),
}


def _event(cause: Place, topic: str, *groups: str) -> set[tuple[Place, Place]]:
    """What one event adds to a trace: made by its cause, brought to the broker, heard by each of these groups."""
    publisher = cause[0]
    made = (publisher, f"publish {topic}")
    heard = {(made, (group, f"process {topic}")) for group in groups}
    return {(cause, made), (made, (publisher, f"relay {topic}"))} | heard


PLACED = DOOR | _event(("orders", "POST /orders"), "orders.order.placed.v1", "inventory", "payments")
RESERVED = PLACED | _event(("inventory", "process orders.order.placed.v1"), "inventory.stock.reserved.v1", "payments")

#: Parent → child, for each way that an order can go. An attempt that is made again adds a span, never an edge.
TRACE_EDGES: dict[str, set[tuple[Place, Place]]] = {
    "confirmed": RESERVED
    | _event(("payments", "process inventory.stock.reserved.v1"), "payments.payment.captured.v1", "orders")
    | _event(("orders", "process payments.payment.captured.v1"), "orders.order.confirmed.v1", "sales", "notifications")
    | {(("orders", "publish orders.order.confirmed.v1"), ("notifications", "deliver mail"))},
    "payment declined": RESERVED
    | _event(("payments", "process inventory.stock.reserved.v1"), "payments.payment.declined.v1", "orders")
    | _event(
        ("orders", "process payments.payment.declined.v1"),
        "orders.order.cancelled.v1",
        "inventory",
        "payments",
        "notifications",
    )
    | _event(("inventory", "process orders.order.cancelled.v1"), "inventory.stock.released.v1")
    | {(("orders", "publish orders.order.cancelled.v1"), ("notifications", "deliver mail"))},
    "stock rejected": PLACED
    | _event(("inventory", "process orders.order.placed.v1"), "inventory.stock.rejected.v1", "orders")
    | _event(
        ("orders", "process inventory.stock.rejected.v1"),
        "orders.order.cancelled.v1",
        "inventory",
        "payments",
        "notifications",
    )
    | {(("orders", "publish orders.order.cancelled.v1"), ("notifications", "deliver mail"))},
}
