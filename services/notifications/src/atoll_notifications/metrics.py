"""What the courier did and what is left, for `/metrics`."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from atoll_notifications.store import Counts

CHANNELS = {"maildir": ("delivered", "failed"), "smtp": ("delivered", "deferred", "refused", "given_up", "failed")}


class Metrics:
    def __init__(self) -> None:
        self._deliveries = Counter(
            "atoll_mail_deliveries",
            "Tries to deliver a mail, by what came of them (failed: the disk or the server was in trouble).",
            ("channel", "outcome"),
            registry=None,
        )
        for channel, outcomes in CHANNELS.items():
            for outcome in outcomes:
                self._deliveries.labels(channel, outcome)  # shown as 0 before the first
        self._waiting = Gauge("atoll_mails_waiting", "Mails still to be delivered.", ("channel",), registry=None)
        self._lost = Gauge(
            "atoll_mails_undeliverable",
            "Mails that SMTP will not try again: refused by the server for good, or given up.",
            ("why",),
            registry=None,
        )

    def register(self, registry: CollectorRegistry) -> None:
        for instrument in (self._deliveries, self._waiting, self._lost):
            registry.register(instrument)

    def counted(self, channel: str, outcome: str) -> None:
        self._deliveries.labels(channel, outcome).inc()

    def show(self, counts: Counts) -> None:
        self._waiting.labels("maildir").set(counts.to_file)
        self._waiting.labels("smtp").set(counts.to_send)
        self._lost.labels("refused").set(counts.refused)
        self._lost.labels("given_up").set(counts.given_up)
