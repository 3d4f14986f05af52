"""A browser's part in logging in, without a browser: the form as it stands in the page, a cookie as it was set."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from urllib.parse import urlencode

from browser.people import Person
from browser.rawhttp import Reply, send


@dataclass
class Form:
    """A form of the page: where it goes, and its fields as they stand."""

    action: str = ""
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def hidden(self) -> dict[str, str]:
        """The fields that the page filled in already."""
        return {name: value for name, value in self.fields.items() if value}


class _Finder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(known.get("action", "")))
        elif tag == "input" and self.forms and "name" in known:
            self.forms[-1].fields[known["name"]] = known.get("value", "")


def cookies_of(*replies: Reply) -> dict[str, str]:
    """What a browser would keep of these answers, the later over the earlier."""
    kept: dict[str, str] = {}
    for reply in replies:
        for line in reply.set_cookies():
            for name, morsel in SimpleCookie(line).items():
                kept[name] = morsel.value
    return {name: value for name, value in kept.items() if value}


def cookie_header(cookies: dict[str, str]) -> str:
    """As a browser sends it."""
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


def login_form(base: str, path: str = "/login", cookie: str = "") -> tuple[Form, dict[str, str]]:
    """The form of a page (that of the login), and the cookies that came with it."""
    reply = send(base, "GET", path, {"Cookie": cookie})
    assert reply.status == 200, f"{path}: {reply.status} {reply.body[:200]}"
    finder = _Finder()
    finder.feed(reply.body)
    assert finder.forms, f"{path} has no form: {reply.body[:300]}"
    return finder.forms[0], cookies_of(reply)


def post_login(
    base: str, person: Person, *, path: str = "/login", headers: dict[str, str] | None = None,
    change: dict[str, str] | None = None,
) -> Reply:  # fmt: skip
    """Fill in the form as it stands and send it as a browser on that page would; `change` overrides fields.

    A field changed to "" is left out; so is a header set to "".
    """
    form, cookies = login_form(base, path)
    fields = form.fields | _credentials(form, person) | (change or {})
    sent = {"Origin": base, "Cookie": cookie_header(cookies), "Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode({name: value for name, value in fields.items() if value}).encode()
    return send(base, "POST", form.action or "/login", sent | (headers or {}), body)


def _credentials(form: Form, person: Person) -> dict[str, str]:
    assert {"username", "password"} <= set(form.fields), f"fields of the login form: {sorted(form.fields)}"
    return {"username": person.name, "password": person.password}


def sign_out(base: str, cookie: str) -> Reply:
    """Leave, by the form of the page that asks whether one means it."""
    form, _ = login_form(base, "/logout", cookie)
    sent = {"Origin": base, "Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
    return send(base, "POST", form.action or "/logout", sent, urlencode(form.fields).encode())


def session(base: str, person: Person) -> str:
    """Log in; the Cookie header of the session."""
    reply = post_login(base, person)
    assert reply.status in (302, 303), f"{person.name} is not let in: {reply.status} {reply.body[:300]}"
    cookies = cookies_of(reply)
    assert cookies, f"a login without a cookie: {reply.headers}"
    return cookie_header(cookies)
