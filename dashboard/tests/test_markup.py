"""Whatever comes from outside is inert: no element, attribute or Markdown of somebody's making gets into a page."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as some

from atoll_dashboard import markup, states

HOSTILE = some.text(alphabet="<>&\"'`=/ ()abc:;\\\n\u0000javascript", max_size=60)


class Elements(HTMLParser):
    """Counts elements and event attributes, and collects text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.said += data


@given(HOSTILE)
def test_no_piece_lets_an_element_or_an_attribute_in(hostile: str) -> None:
    pieces: dict[str, Callable[[str], str]] = {
        "badge": lambda value: markup.badge(value, value),
        "figure": lambda value: markup.figure(value, value, value),
        "alert": lambda value: markup.alert([value, value]),
        "table": lambda value: markup.table(value, [value], [[markup.text(value)]]),
        "empty": lambda value: markup.empty(value),
        "heading": lambda value: markup.heading(1, value),
        "link": lambda value: markup.link(markup.address("service", name=value), markup.text(value)),
        "pairs": lambda value: markup.pairs([(value, markup.text(value))]),
        "attributes": lambda value: markup.attributes({value: value}),
    }
    for name, piece in pieces.items():
        plain, attacked = Elements(piece("x")), Elements(piece(hostile))
        assert attacked.names == plain.names, name
        assert [one for one, _ in attacked.attributes] == [one for one, _ in plain.attributes], name
    link = Elements(markup.link(markup.address("service", name=hostile), "x"))
    assert str(dict(link.attributes)["href"]).startswith("/service")


@given(some.text(max_size=60))
def test_a_text_says_what_it_was(value: str) -> None:
    assert Elements(f"<p>{markup.text(value)}</p>").said == value.replace("\r\n", "\r\n")


def test_a_planted_element_would_be_seen() -> None:
    assert Elements("<p><img src=x onerror=alert(1)></p>").names == ["p", "img"]


def test_every_state_has_a_shape_a_word_and_a_colour() -> None:
    for state, look in states.LOOKS.items():
        assert look.sign
        assert f'aria-label="payments: {state}"' in markup.badge("payments", state)
        assert f"at-{look.tone}{{" in markup.style()


def test_every_pair_of_colours_can_be_read() -> None:
    """WCAG 2.2 contrast, at least 4.5 to 1 (and 4.5 still when dimmed is checked in the browser)."""

    def luminance(colour: str) -> float:
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for pairs in states.COLOURS.values():
        for tone, pair in pairs.items():
            light, dark = sorted((luminance(one) for one in pair), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (tone, pair)
