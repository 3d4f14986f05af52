"""The signed text that tokens and key sets share.

    v1 . <kid> . <payload> . <signature>
    │     │       │            └ 86 characters: Ed25519 over  byte(len(salt)) ‖ salt ‖ "v1.<kid>.<payload>"
    │     │       └ canonical unpadded base64url of a JSON object
    │     └ 16 lower-case hex digits, the signing key's name
    └ version

itsdangerous does the joining and splitting; Ed25519 goes in as its SigningAlgorithm, so that whoever verifies cannot
mint. Three of its defaults are not used, on purpose:

* `key_derivation="none"` (Ed25519 keys cannot be derived by hashing) ignores the salt, so the salt is bound here;
  without that an access token would pass as a refresh token.
* `URLSafeSerializer` inflates what it loads: 65 KB become 150 MB. Payloads here are never compressed.
* Its base64 decoder takes many spellings of the same bytes (15 of the 63 other last characters of a signature verify):
  only the canonical spelling is accepted, so a text has exactly one meaning and a meaning one text.
"""

import re

from itsdangerous import BadData, Signer
from itsdangerous.encoding import base64_decode, base64_encode
from itsdangerous.signer import SigningAlgorithm

from ._errors import TokenError
from ._keys import PublicKey, SigningKey

_FORM = re.compile(r"v1\.([0-9a-f]{16})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})", re.ASCII)
_KID = slice(3, 19)


class _Ed25519(SigningAlgorithm):
    """One key under one salt. itsdangerous hands in `key` bytes as well; they name the same key and are not needed."""

    def __init__(self, salt: str, public: PublicKey, private: SigningKey | None = None) -> None:
        encoded = salt.encode("ascii")
        self._prefix = bytes([len(encoded)]) + encoded
        self._public = public
        self._private = private

    def get_signature(self, key: bytes, value: bytes) -> bytes:  # noqa: ARG002
        assert self._private is not None, "a verifier cannot sign"
        return self._private.sign(self._prefix + value)

    def verify_signature(self, key: bytes, value: bytes, sig: bytes) -> bool:  # noqa: ARG002
        return self._public.verify(sig, self._prefix + value)


def _signer(salt: str, public: PublicKey, private: SigningKey | None = None) -> Signer:
    return Signer(public.raw, sep=b".", key_derivation="none", algorithm=_Ed25519(salt, public, private))


def seal(payload: bytes, key: SigningKey, salt: str) -> str:
    """Sign `payload` (JSON bytes) for the purpose named by `salt`."""
    value = b".".join((b"v1", key.kid.encode("ascii"), base64_encode(payload)))
    return _signer(salt, key.public, key).sign(value).decode("ascii")


def kid_of(text: str, chars_max: int) -> str:
    """Check length, then form and canonical spelling, and return the kid. No cryptography yet, nothing decoded yet.

    Raises TokenError `too_long` or `malformed`.
    """
    if len(text) > chars_max:
        raise TokenError("too_long", f"more than {chars_max} characters")
    match = _FORM.fullmatch(text)
    if match is None:
        raise TokenError("malformed", "expected v1.<kid>.<payload>.<signature>")
    if not all(_is_canonical(part) for part in match.group(2, 3)):
        raise TokenError("malformed", "base64url is not canonical")
    return text[_KID]


def signed_by(text: str, key: PublicKey, salt: str) -> bool:
    """Whether `key` signed `text` for `salt`. The form has been checked by `kid_of`."""
    return _signer(salt, key).validate(text)


def payload_of(text: str) -> bytes:
    """The payload's bytes. Whoever calls this before `signed_by` holds a stranger's bytes."""
    return base64_decode(text.split(".")[2])


def _is_canonical(part: str) -> bool:
    try:
        return base64_encode(base64_decode(part)) == part.encode("ascii")
    except BadData:
        return False
