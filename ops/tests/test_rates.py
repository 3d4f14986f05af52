"""From counters to "per second, lately": whatever the history, no rate is negative and none is made up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll_ops.control import exposition, rates
from atoll_ops.control.rates import Sample, Window, grown, quantile

TEXT = """\
# HELP atoll_http_requests_total Requests answered
# TYPE atoll_http_requests_total counter
atoll_build_info{version="1.2.3"} 1.0
atoll_http_requests_total{method="POST",route="/orders",status="202"} 40.0
atoll_http_requests_total{method="GET",route="/orders/{id}",status="503"} 2.0
atoll_http_request_seconds_bucket{le="0.01",method="POST",route="/a\\"b\\n}"} 30.0
atoll_http_request_seconds_bucket{le="+Inf",method="POST",route="/a"} 40.0
atoll_events_total{outcome="handled"} 7.0
atoll_events_total{outcome="retried"} 1.0
atoll_events_total{outcome="rejected"} 2.0
atoll_publish_acks_total 5.0 1700000000000
atoll_gateway_retries_total{service="orders"} 4.0
atoll_redeliveries_total{group="payments"} 6.0
atoll_redeliveries_total{group="sales"} 1.0
atoll_outbox_refused 3.0
atoll_gateway_requests_total{service="gateway",method="GET",route="/metrics",status="200"} 900.0
"""


def window(*counts: tuple[float, int, float]) -> Window:
    """Of (at, pid, requests)."""
    made = Window()
    for at, pid, requests in counts:
        made.add(Sample(at, pid, {"requests": requests}))
    return made


def test_a_page_of_metrics_is_summed_by_what_it_means() -> None:
    sample = rates.sample(TEXT, 1.0, 7)
    assert sample.counts == {"requests": 42.0, "errors": 5.0, "events_in": 10.0, "events_out": 5.0, "retries": 12.0}
    assert sample.buckets == {0.01: 30.0, math.inf: 40.0}
    assert sample.gauges == {"atoll_outbox_refused": 3.0}
    assert sample.version == "1.2.3"


@pytest.mark.parametrize(
    "line",
    ["x_total", "x_total ", "x_total one", "x_total{ 1", 'x_total{a="b} 1', "x_total NaN", "x_total +Inf", "\0", "{}"],
)
def test_a_line_that_is_nonsense_is_passed_over(line: str) -> None:
    found = list(exposition.read(f"{line}\nx_total 2\r\n", {"x_total"}))
    assert found[-1] == ("x_total", {}, 2.0)
    assert [one for one in found[:-1] if not math.isfinite(one[2])] == []


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    rates.sample(text, 0.0, None)
    rates.sample("".join(f"{name}{text}\n" for name in rates.WANTED), 0.0, None)


def test_one_sample_is_no_rate() -> None:
    assert Window().rates(0.0) is None
    assert window((0, 1, 5)).rates(0.0) is None


def test_a_rate_is_what_was_counted_over_the_seconds_between() -> None:
    found = window((0, 1, 100), (2, 1, 140), (4, 1, 140)).rates(4.5)
    assert found is not None
    assert (found["requests"], found["window_seconds"], found["p95_ms"]) == (10.0, 4, None)


def test_a_counter_that_fell_began_anew() -> None:
    fell = window((0, 1, 100), (2, 1, 6)).rates(2.0)
    assert fell is not None
    assert fell["requests"] == 3.0


def test_a_new_process_that_has_passed_the_old_figure_is_still_a_new_process() -> None:
    found = window((0, 1, 10), (2, 2, 12)).rates(2.0)
    assert found is not None
    assert found["requests"] == 6.0


def test_what_was_not_heard_lately_is_not_known() -> None:
    assert window((0, 1, 0), (2, 1, 9)).rates(2.0 + rates.FRESH_SECONDS + 0.1) is None


def test_the_window_forgets_and_is_bounded() -> None:
    made = window(*((at / 100, 1, 0) for at in range(10_000)))
    assert len(made._samples) <= rates._SAMPLES_MAX
    made = window((0, 1, 0), (2, 1, 1000), *((2 + at, 1, 1000) for at in range(1, 20)))
    found = made.rates(21.0)
    assert found is not None
    assert found["requests"] == 0.0
    assert rates.WINDOW_SECONDS <= found["window_seconds"] <= rates.WINDOW_SECONDS + 2


counts = st.lists(st.tuples(st.floats(0.01, 5), st.integers(1, 3), st.floats(0, 1e9)), max_size=40)


@given(counts)
def test_no_history_makes_a_negative_rate(steps: list[tuple[float, int, float]]) -> None:
    made, now = Window(), 0.0
    for seconds, pid, requests in steps:
        now += seconds
        made.add(Sample(now, pid, {"requests": requests}, {0.1: requests / 2, math.inf: requests}))
        found = made.rates(now)
        assert found is None or (found["requests"] >= 0 and (found["p95_ms"] is None or found["p95_ms"] >= 0))


@given(st.lists(st.integers(0, 100), min_size=1), st.lists(st.integers(0, 100), min_size=1))
def test_growth_over_two_steps_is_the_growth_of_both(first: list[int], more: list[int]) -> None:
    a = dict(enumerate(map(float, first)))
    b = {key: a.get(key, 0.0) + value for key, value in enumerate(map(float, more))} | {
        key: value for key, value in a.items() if key >= len(more)
    }
    assert sum(grown({}, a).values()) + sum(grown(a, b).values()) == sum(b.values())


BOUNDS = (0.01, 0.1, 1.0, math.inf)


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=300))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(seconds: list[float]) -> None:
    cumulative = {bound: float(sum(one <= bound for one in seconds)) for bound in BOUNDS}
    found = quantile(cumulative, 0.95)
    assert found is not None
    true = sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1]
    upper = next(bound for bound in BOUNDS if true <= bound)
    lower = max((bound for bound in BOUNDS if bound < upper), default=0.0)
    assert lower <= found <= min(upper, 1.0)


def test_a_quantile_by_hand() -> None:
    assert quantile({}, 0.95) is None
    assert quantile({0.1: 0.0, math.inf: 0.0}, 0.95) is None
    assert quantile({0.1: 90.0, 0.2: 100.0, math.inf: 100.0}, 0.95) == pytest.approx(0.15)
    assert quantile({0.1: 0.0, math.inf: 10.0}, 0.95) == 0.1  # "at least": nothing is known beyond
