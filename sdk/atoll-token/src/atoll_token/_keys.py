"""Ed25519 keys and their names.

A key's `kid` is derived from the key itself (first 16 hex digits of the SHA-256 of its 32 raw bytes), so that a key set
cannot give one key's name to another.
"""

import hashlib
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KID_CHARS = 16


class PublicKey:
    """Checks signatures. Equal to another exactly if the raw keys are equal."""

    __slots__ = ("_key", "kid", "raw")

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.raw = key.public_bytes_raw()
        self.kid = hashlib.sha256(self.raw).hexdigest()[:KID_CHARS]

    @classmethod
    def from_raw(cls, raw: bytes) -> Self:
        """From the 32 raw bytes; ValueError for any other length."""
        return cls(Ed25519PublicKey.from_public_bytes(raw))

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """From PEM SubjectPublicKeyInfo; ValueError if it is not that or not Ed25519."""
        key = serialization.load_pem_public_key(pem)
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("not an Ed25519 public key")  # noqa: TRY004 - the content is wrong, not the caller's type
        return cls(key)

    def to_pem(self) -> bytes:
        return self._key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def verify(self, signature: bytes, data: bytes) -> bool:
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"PublicKey({self.kid})"


class SigningKey:
    """Signs, and so can pose as its owner: it never leaves the process that owns it. Its repr shows the kid alone."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    @classmethod
    def generate(cls) -> Self:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """From unencrypted PEM PKCS8; ValueError if it is not that or not Ed25519."""
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except TypeError as error:
            raise ValueError("the key is encrypted") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 private key")  # noqa: TRY004 - the content is wrong, not the caller's type
        return cls(key)

    def to_pem(self) -> bytes:
        """Unencrypted PEM PKCS8: write it to a file of mode 0600 only."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def kid(self) -> str:
        return self.public.kid

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    def __repr__(self) -> str:
        return f"SigningKey({self.kid})"
