"""Why a token or a key set was refused."""

from typing import Literal

Code = Literal[
    "malformed",
    "too_long",
    "unknown_key",
    "bad_signature",
    "expired",
    "not_yet_valid",
    "clock_skew",
    "wrong_type",
    "wrong_audience",
    "wrong_issuer",
    "old_version",
]


class TokenError(Exception):
    """The token (or key set) is refused; whoever sent it is at fault, save for `clock_skew` and `unknown_key`.

    `code` is stable and may be shown to the client. `clock_skew` says that issuer and verifier disagree about the
    time by more than the leeway: an operator must mend a clock. `unknown_key` may heal by itself once the newest
    key set has arrived. All others: get a new token, sending this one again is useless.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code: Code = code
        self.text = text
