"""What control itself shows at /metrics, beside what the library does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from atoll_ops.control import alarms
from atoll_ops.control.webhook import Webhook


class ControlCollector(Collector):
    """Reads the book of alarms, and the webhook's counts if there is one, at each scrape."""

    def __init__(self, book: alarms.Book, webhook: Webhook | None) -> None:
        self._book = book
        self._webhook = webhook

    def collect(self) -> Iterator[Metric]:
        """All families of control's own."""
        on = Counter(dict.fromkeys(alarms.KINDS, 0))  # those that are off count as 0, so that a graph has a line
        on.update(alarm.kind for alarm in self._book.listed())
        family = GaugeMetricFamily("atoll_ops_alarms", "Alarms that are on", labels=["kind"])
        for kind, count in sorted(on.items()):
            family.add_metric([kind], count)
        yield family
        if self._webhook is not None:
            posts = CounterMetricFamily("atoll_ops_alarm_posts", "Alarms sent to the webhook", labels=["outcome"])
            for outcome, count in self._webhook.outcomes.items():
                posts.add_metric([outcome], count)
            yield posts
