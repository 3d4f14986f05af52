"""A trace as rows: depth, place and width, in the order in which an engineer reads it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from atoll_dashboard import markup, wording
from atoll_dashboard.jaeger import SpanRow, Trace

_DEPTH_MAX = 12
_KIND = {"consumer": "at-consume", "producer": "at-publish"}


@dataclass(frozen=True)
class Bar:
    """A span in its place: depth below the root, start and width in percent of the whole trace."""

    span: SpanRow
    depth: int
    left: float
    width: float


def bars(spans: Sequence[SpanRow]) -> list[Bar]:
    """Depth first, siblings by their start. A span whose parent is not there stands at the top, and is not lost."""
    if not spans:
        return []
    begin = min(span.started_at for span in spans)
    end = max(span.started_at + span.duration_ms / 1000 for span in spans)
    whole = max(end - begin, 1e-6)
    known = {span.id for span in spans}
    children: dict[str | None, list[SpanRow]] = {}
    for span in sorted(spans, key=lambda one: (one.started_at, one.id)):
        parent = span.parent if span.parent in known and span.parent != span.id else None
        children.setdefault(parent, []).append(span)
    found: list[Bar] = []
    todo = [(span, 0) for span in reversed(children.pop(None, []))]
    while todo or children:
        if not todo:  # what is left are circles: each is cut at its first span
            cut = min(children, key=lambda one: (children[one][0].started_at, children[one][0].id))
            todo = [(children[cut].pop(0), 0)]
            if not children[cut]:
                del children[cut]
        span, depth = todo.pop()
        left = 100 * (span.started_at - begin) / whole
        found.append(Bar(span, depth, left, min(100 - left, 100 * span.duration_ms / 1000 / whole)))
        todo += [(child, depth + 1) for child in reversed(children.pop(span.id, []))]
    return found


def render(trace: Trace, parts: Collection[str]) -> str:
    """The waterfall as a list; errors stand open. A span of one of our `parts` leads to what that part logged."""
    rows = "".join(_row(bar, parts) for bar in bars(trace.spans))
    return f'<ul class="at-waterfall" role="list" aria-label="Spans of the trace">{rows}</ul>'


def _row(bar: Bar, parts: Collection[str]) -> str:
    span = bar.span
    kind = "at-error" if span.error else _KIND.get(span.kind, "")
    took = wording.milliseconds(span.duration_ms)
    failed = ' <span class="at-error-text">error</span>' if span.error else ""
    links = f" · follows {markup.text(', '.join(span.links))}" if span.links else ""
    indent = min(bar.depth, _DEPTH_MAX) * 0.9
    return (
        f'<li role="listitem"><details{" open" if span.error else ""}><summary>'
        f'<span class="at-span-name" style="padding-left:{indent:.1f}rem" '
        f'title="{markup.text(span.service)}: {markup.text(span.name)}">'
        f"<b>{markup.text(span.service)}</b> {markup.text(span.name)}{failed}</span>"
        f'<span class="at-track" aria-hidden="true">'
        f'<i class="{kind}" style="left:{bar.left:.2f}%;width:{bar.width:.2f}%"></i></span>'
        f'<span class="at-took">{took}</span></summary>'
        f'<div class="at-muted">{markup.text(span.kind)} · began {bar.left:.0f} % into the trace{links}</div>'
        f"{_log(span.service) if span.service in parts else ''}{markup.attributes(span.attributes)}</details></li>"
    )


def _log(service: str) -> str:
    """On a line of its own: in the middle of others a link would be too small to hit, and told by its colour alone."""
    there = markup.link(markup.address("service", name=service), f"Log of {markup.text(service)}")
    return f'<div class="at-span-log">{there}</div>'
