"""The topology as DOT: who publishes what, and who listens. Sorted, so that it never reshuffles under the reader."""

from __future__ import annotations

import json
from dataclasses import dataclass

from atoll_dashboard import states
from atoll_dashboard.fleetview import View
from atoll_dashboard.snapshot import Part

NODES_MAX = 40
_INK = {"light": ("#2A2826", "#8A857E", "#F6F5F3", "#5F5B56"), "dark": ("#EDEAE6", "#8F8A83", "#232528", "#B5AFA8")}


@dataclass(frozen=True)
class Flow:
    """A topic with its publishers and listeners, by part name."""

    topic: str
    publishers: tuple[str, ...]
    listeners: tuple[str, ...]


def flows(parts: list[Part]) -> list[Flow]:
    """Every topic that somebody publishes or listens to, sorted by name."""
    topics = sorted({topic for part in parts for topic in (*part.topics.publishes, *part.topics.consumes)})
    return [
        Flow(
            topic,
            tuple(sorted({part.name for part in parts if topic in part.topics.publishes})),
            tuple(sorted({part.name for part in parts if topic in part.topics.consumes})),
        )
        for topic in topics
    ]


def near(all_flows: list[Flow], around: str | None) -> list[Flow]:
    """All flows where they fit on a page; else those one hop around a part."""
    nodes = {flow.topic for flow in all_flows} | {
        name for flow in all_flows for name in (*flow.publishers, *flow.listeners)
    }
    if len(nodes) <= NODES_MAX:
        return all_flows
    return [flow for flow in all_flows if around in flow.publishers or around in flow.listeners]


def dot(view: View, theme: str, around: str | None = None) -> str:
    """The graph. A part that listens to every topic is drawn once, by a dashed edge: a dozen would hide the rest."""
    ink, line, paper, muted = _INK.get(theme, _INK["light"])
    shown = near(flows(view.by_name()), around)
    witnesses = _witnesses(shown)
    parts = sorted({name for flow in shown for name in (*flow.publishers, *flow.listeners)})
    topics = {} if view.snapshot is None else view.snapshot.bus.topics or {}
    lines = [
        'digraph { rankdir=LR; bgcolor="transparent"; nodesep=0.18; ranksep=0.55; pad=0.1;',
        f'node [fontname="Source Sans 3, Source Sans Pro, sans-serif", fontsize=12, height=0.36, margin="0.16,0.05", '
        f'color="{line}"];',
        f'edge [color="{line}", arrowsize=0.6, penwidth=1.1];',
        *(_part(view, name, theme) for name in parts),
        *(
            _topic(flow, not topics.get(flow.topic) or not topics[flow.topic].rate, ink, line, paper, muted)
            for flow in shown
        ),
        *(f"{_id(name)} -> {_id(flow.topic)};" for flow in shown for name in flow.publishers),
        *(f"{_id(flow.topic)} -> {_id(name)};" for flow in shown for name in flow.listeners if name not in witnesses),
    ]
    lines += [
        f'"every topic" [shape=plaintext, fontcolor="{muted}", label="every topic"]; '
        f'"every topic" -> {_id(name)} [style=dashed];'
        for name in sorted(witnesses)
    ]
    return "\n".join([*lines, "}"])


def words(parts: list[Part]) -> list[str]:
    """The same as sentences, for those who do not see it."""
    return [
        f"{flow.topic}: from {', '.join(flow.publishers) or 'nobody'} to {', '.join(flow.listeners) or 'nobody'}"
        for flow in flows(parts)
    ]


def _witnesses(shown: list[Flow]) -> set[str]:
    """Who listens to everything, where there is much to listen to."""
    if len(shown) < 5:
        return set()
    return set.intersection(*(set(flow.listeners) for flow in shown))


def _part(view: View, name: str, theme: str) -> str:
    part = next(one for one in view.by_name() if one.name == name)
    state = view.state(part)
    look = states.look(state)
    ink, paper = states.COLOURS.get(theme, states.COLOURS["light"])[look.tone]
    style = "rounded,filled,dashed" if look.dashed else "rounded,filled"
    return (
        f'{_id(name)} [shape=box, style="{style}", penwidth=1.6, color="{ink}", fillcolor="{paper}", '
        f'fontcolor="{ink}", label={_id(f"{look.sign} {name}")}, tooltip={_id(f"{name}: {state}")}];'
    )


def _topic(flow: Flow, idle: bool, ink: str, line: str, paper: str, muted: str) -> str:
    """Named without its publisher, which its edge shows."""
    prefix = f"{flow.publishers[0]}." if len(flow.publishers) == 1 else ""
    short = flow.topic.removeprefix(prefix).removesuffix(".v1")
    return (
        f'{_id(flow.topic)} [shape=cds, style=filled, fontsize=11, color="{line}", fillcolor="{paper}", '
        f'fontcolor="{muted if idle else ink}", label={_id(short)}, tooltip={_id(flow.topic)}];'
    )


def _id(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)  # DOT's quoted strings escape as JSON's do
