"""The key set: which keys may sign tokens, said by the root key.

Verifiers hold the root's public half from their installation. The version only rises, and a verifier that remembers the
highest one it has stored cannot be given an older set with a key that has been withdrawn since.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated

import msgspec
from itsdangerous import BadData
from itsdangerous.encoding import base64_decode, base64_encode
from msgspec import Meta

from . import _envelope
from ._errors import TokenError
from ._keys import PublicKey, SigningKey

SALT = "keyset"
DOCUMENT_CHARS_MAX = 16_384
KEYS_MAX = 32


class KeySet(msgspec.Struct, frozen=True):
    """Verified. `keys` is a read-only mapping from kid to key; its `get` is what a Verifier takes."""

    version: int
    keys: Mapping[str, PublicKey]


class _Entry(msgspec.Struct, frozen=True):
    kid: str
    key: str  # the 32 raw bytes, canonical base64url


class _Document(msgspec.Struct, frozen=True):
    version: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    keys: Annotated[tuple[_Entry, ...], Meta(max_length=KEYS_MAX)]


def sign_key_set(version: int, keys: Sequence[PublicKey], root: SigningKey) -> str:
    """The signed document. `version` must be higher than that of every other set that this root has signed."""
    if not 1 <= version < 2**53 or len(keys) > KEYS_MAX:
        raise ValueError(f"version must be 1 to 2^53−1 and keys at most {KEYS_MAX}")
    entries = tuple(_entry(key) for key in keys)
    return _envelope.seal(msgspec.json.encode(_Document(version, entries)), root, SALT)


def open_key_set(document: str, root: PublicKey, minimum_version: int = 0) -> KeySet:
    """Verify `document`.

    Raises TokenError: too_long, malformed, unknown_key (another root), bad_signature, old_version.
    Pass the version that you have stored as `minimum_version`; the same version again is fine.
    """
    if _envelope.kid_of(document, DOCUMENT_CHARS_MAX) != root.kid:
        raise TokenError("unknown_key", "signed by another root")
    if not _envelope.signed_by(document, root, SALT):
        raise TokenError("bad_signature", "the signature does not fit")
    try:
        content = msgspec.json.decode(_envelope.payload_of(document), type=_Document)
        keys = {entry.kid: _key(entry) for entry in content.keys}
    except (BadData, ValueError) as error:
        raise TokenError("malformed", f"key set: {error}") from None
    if content.version < minimum_version:
        raise TokenError("old_version", f"version {content.version}, already at {minimum_version}")
    return KeySet(content.version, MappingProxyType(keys))


def _entry(key: PublicKey) -> _Entry:
    return _Entry(key.kid, base64_encode(key.raw).decode("ascii"))


def _key(entry: _Entry) -> PublicKey:
    key = PublicKey.from_raw(base64_decode(entry.key))
    if _entry(key) != entry:  # a borrowed name, or another spelling of the same bytes
        raise ValueError(f"entry {entry.kid} does not fit its key, {key.kid}")
    return key
