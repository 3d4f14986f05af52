"""What the model says when the core and the spec part."""

from __future__ import annotations


class Violation(AssertionError):  # noqa: N818 - it is a finding, and the broker's error
    """The core did what it must not, or did not do what it must."""


class Refused(Exception):  # noqa: N818 - a verdict of the reference
    """The spec answers this command with ERR `code`."""

    def __init__(self, code: str, *, closes: bool) -> None:
        super().__init__(code)
        self.code = code
        self.closes = closes


def must(truth: object, why: str, *parts: object) -> None:
    """`parts` are shown only if it fails: this is asked several times a step."""
    if not truth:
        raise Violation(" ".join([why, *map(repr, parts)]))
