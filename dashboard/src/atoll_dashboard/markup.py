"""HTML pieces. Whatever comes from outside passes through `text`: there is no other way into a piece."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

from atoll_dashboard import states, wording

_STYLE = Path(__file__).with_name("style.css")


def text(value: object) -> str:
    """Anything as inert HTML text, good inside an attribute's quotes too."""
    return html.escape(str(value), quote=True)


def style() -> str:
    """The stylesheet, with the colours of states.py, as one `<style>` element."""
    tones = []
    for tone, light in states.COLOURS["light"].items():
        dark = states.COLOURS["dark"][tone]
        tones.append(f".at-{tone}{{--ink:light-dark({light[0]},{dark[0]});--paper:light-dark({light[1]},{dark[1]})}}")
    return f"<style>{_STYLE.read_text()}{''.join(tones)}</style>"


def address(page: str, **query: object) -> str:
    """The address of a page with its query, as an attribute's value."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return text(f"/{page}" + (f"?{urlencode(given, quote_via=quote)}" if given else ""))


def link(href: str, inner: str, classes: str = "at-link") -> str:
    """A link within the dashboard; `href` from `address`, `inner` already HTML."""
    return f'<a class="{classes}" href="{href}" target="_self">{inner}</a>'


def trace(trace_id: str | None) -> str:
    """A trace by its first digits, as a link to its page; a dash for none."""
    if not trace_id:
        return wording.DASH
    return link(address("traces", trace=trace_id), f"{text(trace_id[:8])}…")


def badge(name: str, state: str) -> str:
    """Shape, word and colour of a state, with the part's name for those who hear it."""
    look = states.look(state)
    dashed = " at-dashed" if look.dashed else ""
    return (
        f'<span class="at-badge at-{look.tone}{dashed}" role="img" aria-label="{text(name)}: {text(state)}">'
        f'<span aria-hidden="true">{look.sign} {text(state)}</span></span>'
    )


def figure(title: str, value: str, note: str = "", tone: str = "") -> str:
    """One of the large figures."""
    kind = f" at-{tone} at-toned" if tone else ""
    below = f'<div class="at-figure-note">{text(note)}</div>' if note else '<div class="at-figure-note">&nbsp;</div>'
    return (
        f'<div class="at-figure{kind}" role="group" aria-label="{text(title)}: {text(value)}">'
        f'<div class="at-figure-title">{text(title)}</div><div class="at-figure-value">{text(value)}</div>{below}</div>'
    )


def figures(pieces: Iterable[str]) -> str:
    """Figures side by side; two by two on a phone."""
    return f'<div class="at-figures">{"".join(pieces)}</div>'


def pairs(items: Sequence[tuple[str, str]]) -> str:
    """Names and values (already HTML), as a description list."""
    rows = "".join(f"<div><dt>{text(name)}</dt><dd>{value}</dd></div>" for name, value in items)
    return f'<dl class="at-pairs">{rows}</dl>'


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose cells are HTML already; it scrolls by itself where the page is narrow."""
    heads = "".join(f'<th scope="col">{text(one)}</th>' for one in head)
    body = "".join(
        "<tr>"
        + "".join(f'<td data-head="{text(name)}">{cell}</td>' for name, cell in zip(head, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="at-table" role="region" aria-label="{text(caption)}" tabindex="0">'
        f'<table role="table"><caption class="at-hidden">{text(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def alert(sentences: Sequence[str]) -> str:
    """What is gone, for eyes and ears at once."""
    items = "".join(f"<li>{text(one)}</li>" for one in sentences)
    sign = '<span aria-hidden="true">✕</span>'
    # It may be longer than its place and scroll: the keyboard must reach it.
    return f'<div class="at-alert at-down" role="alert" tabindex="0">{sign}<ul>{items}</ul></div>'


def note(inner: str, tone: str = "unknown") -> str:
    """A quiet box; `inner` is HTML already."""
    return f'<div class="at-note at-{tone}">{inner}</div>'


def empty(words: str, more: str = "") -> str:
    """What an empty list says."""
    below = f'<div class="at-muted">{more}</div>' if more else ""
    return f'<div class="at-empty"><div>{text(words)}</div>{below}</div>'


def skeleton(lines: int = 4) -> str:
    """What is shown before anything came."""
    bars = '<div class="at-bar"></div>' * lines
    return f'<div class="at-skeleton" role="status" aria-label="Loading">{bars}</div>'


def wrapped(inner: str, *, dimmed: bool = False) -> str:
    """A piece as a block of the page, dimmed where it may no longer be so."""
    return f'<div class="at{" at-dim" if dimmed else ""}">{inner}</div>'


def heading(level: int, words: str) -> str:
    """A heading."""
    return f'<h{level} class="at-h{level}">{text(words)}</h{level}>'


def attributes(items: Mapping[str, str]) -> str:
    """Names and values of a span, a line each."""
    rows = "".join(f'<tr><th scope="row">{text(name)}</th><td>{text(value)}</td></tr>' for name, value in items.items())
    return f'<table class="at-attributes"><tbody>{rows}</tbody></table>'
