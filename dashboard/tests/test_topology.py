"""The graph: sorted, bounded, and the same in words."""

from __future__ import annotations

import re

from atoll_dashboard import snapshot, topology
from atoll_dashboard.fleetview import View

NOW = 1000.0


def view(count: int = 0, *, state: str = "running", rate: float = 1.0, reverse: bool = False) -> View:
    parts = [
        _part("orders", state, ["orders.order.placed.v1"], []),
        _part("payments", state, ["payments.payment.captured.v1"], ["orders.order.placed.v1"]),
        *(_part(f"s{n}", "running", [f"s{n}.a.b.v1"], [f"s{n - 1}.a.b.v1"] if n else []) for n in range(count)),
    ]
    topics = {"orders.order.placed.v1": {"rate": rate}}
    read = snapshot.read(
        {
            "system": "a",
            "as_of": NOW,
            "parts": parts[::-1] if reverse else parts,
            "bus": {"available": True, "topics": topics},
        }
    )
    return View(read, NOW, NOW, 0.0, 0.0)


def _part(name: str, state: str, publishes: list[str], consumes: list[str]) -> dict[str, object]:
    topics = {"publishes": publishes, "consumes": consumes}
    return {"name": name, "instance": 1, "kind": "service", "state": state, "pid": 1, "topics": topics}


def test_the_graph_never_reshuffles() -> None:
    assert topology.dot(view(5), "light") == topology.dot(view(5, reverse=True), "light")
    assert _nodes(topology.dot(view(state="down"), "light")) == _nodes(topology.dot(view(), "light"))


def test_a_state_is_shape_word_and_colour() -> None:
    down = topology.dot(view(state="down"), "light")
    assert "dashed" in down
    assert "payments: down" in down
    assert "#A3262B" in down


def test_an_idle_topic_is_grey_in_its_place() -> None:
    busy, idle = (topology.dot(view(rate=rate), "light") for rate in (1.0, 0.0))
    assert busy != idle
    assert _nodes(busy) == _nodes(idle)


def test_a_large_graph_is_one_hop_around_a_part() -> None:
    seen = view(30)
    assert len(_nodes(topology.dot(seen, "light", "s3"))) < 10
    assert topology.near(topology.flows(seen.by_name()), None) == []


def test_a_name_cannot_break_out_of_the_graph() -> None:
    parts = [_part('a"]; evil [label="x', "running", ['t"; b.v1'], [])]
    read = snapshot.read({"system": "a", "as_of": NOW, "parts": parts})
    drawn = topology.dot(View(read, NOW, NOW, 0.0, 0.0), "light")
    assert "evil" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", drawn)


def test_the_same_is_said_in_words() -> None:
    assert topology.words(view().by_name()) == [
        "orders.order.placed.v1: from orders to payments",
        "payments.payment.captured.v1: from payments to nobody",
    ]


def _nodes(drawn: str) -> list[str]:
    return re.findall(r'(?m)^("[^"]+") \[shape', drawn)
