"""Writes auth/spec/vectors: an implementation of token-1.md of its own, by cryptography and base64 alone.

It shares no line with the library, so that the two can only agree by both following the text. Run it after a change of
the format: `python tests/make_vectors.py`. Ed25519 is deterministic, and so is the output.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VECTORS = Path(__file__).parents[3] / "auth" / "spec" / "vectors"
NOW = 1_795_400_000
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's group

Json = dict[str, Any]


class Key:
    """A test key whose 32 secret bytes are all `byte`."""

    def __init__(self, byte: int) -> None:
        self.seed = bytes([byte]) * 32
        self.private = Ed25519PrivateKey.from_private_bytes(self.seed)
        self.raw = self.private.public_key().public_bytes_raw()
        self.kid = hashlib.sha256(self.raw).hexdigest()[:16]


FIRST, SECOND, FOREIGN, ROOT, OTHER_ROOT = (Key(byte) for byte in (1, 2, 3, 9, 10))


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def seal(payload: bytes, key: Key, salt: str, *, kid: str | None = None, version: str = "v1") -> str:
    value = f"{version}.{kid or key.kid}.{b64(payload)}"
    signature = key.private.sign(bytes([len(salt)]) + salt.encode() + value.encode())
    return f"{value}.{b64(signature)}"


def claims(**changes: Any) -> Json:
    base: Json = {
        "iss": "atoll-auth",
        "sub": "anna",
        "aud": "atoll",
        "scope": "orders:* stock:read",
        "jti": "01J00000000000000000000000",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 600,
        "typ": "access",
    }
    base.update(changes)
    return {name: value for name, value in base.items() if value is not ...}


def token(content: Json, key: Key = FIRST, salt: str | None = None, **options: str) -> str:
    payload = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    return seal(payload, key, salt or content["typ"], **options)


def expects(**changes: Any) -> Json:
    return {"issuer": "atoll-auth", "audience": "atoll", "typ": "access", "now": NOW, **changes}


def valid() -> Iterator[Json]:
    def case(name: str, content: Json, text: str | None = None, **changes: Any) -> Json:
        content_known = {key: value for key, value in content.items() if key != "new"}
        return {
            "name": name,
            "token": text or token(content),
            "expects": expects(**changes),
            "claims": content_known,
        }

    yield case("access", claims())
    yield case("second key", claims(), token(claims(), SECOND))
    yield case("with client_id", claims(client_id="demo"))
    yield case("no scope", claims(scope=""))
    yield case("name beyond ASCII", claims(sub="Ångström"))
    yield case("unknown claim is ignored", claims(new={"a": [1]}))
    yield case("JSON with spaces", claims(), seal(json.dumps(claims(), indent=1).encode(), FIRST, "access"))
    yield case(
        "assertion",
        claims(iss="atoll-gateway", aud="orders", exp=NOW + 30, typ="assertion"),
        issuer="atoll-gateway",
        audience="orders",
        typ="assertion",
    )
    yield case("refresh", claims(aud="atoll-auth", typ="refresh"), audience="atoll-auth", typ="refresh")
    yield case("issuer's clock 5 s ahead", claims(iat=NOW + 5, nbf=NOW + 5))
    yield case("last moment of the leeway", claims(), now=NOW + 604.99)


def invalid() -> Iterator[Json]:
    yield from invalid_texts()
    yield from invalid_signatures()
    yield from invalid_claims()


def bad(name: str, text: str, error: str, **changes: Any) -> Json:
    return {"name": name, "token": text, "expects": expects(**changes), "error": error}


def invalid_texts() -> Iterator[Json]:
    good = token(claims())
    version, kid, payload, signature = good.split(".")
    yield bad("empty", "", "malformed")
    yield bad("4097 characters", "v1." + "a" * 4094, "too_long")
    yield bad("4096 characters of nothing", "v1." + "a" * 4093, "malformed")
    yield bad("no version", f"{kid}.{payload}.{signature}", "malformed")
    yield bad("a fifth part", f"{good}.AA", "malformed")
    yield bad("upper-case kid", f"{version}.{kid.upper()}.{payload}.{signature}", "malformed")
    yield bad("padding", good + "==", "malformed")
    yield bad("line feed at the end", good + "\n", "malformed")
    yield bad("space before", " " + good, "malformed")
    yield bad("standard alphabet", f"{version}.{kid}.{payload}.{'+' * 86}", "malformed")
    yield bad("digits beyond ASCII", f"{version}.{'١' * 16}.{payload}.{signature}", "malformed")
    yield bad("empty payload", f"{version}.{kid}..{signature}", "malformed")
    yield bad("payload of impossible length", f"{version}.{kid}.AAAAA.{signature}", "malformed")
    yield bad("version 2, signed", token(claims(), version="v2"), "malformed")
    yield bad("signature in another spelling", good[:-1] + sibling(good[-1]), "malformed")
    spare = token(claims(sub="anna2"))
    assert len(spare.split(".")[2]) % 4, "this payload needs spare bits"
    head, middle, tail = spare.rsplit(".", 2)
    yield bad("payload in another spelling", f"{head}.{middle[:-1]}{sibling(middle[-1])}.{tail}", "malformed")


def sibling(last: str) -> str:
    """Another character that decodes to the same bytes: its spare bits differ."""
    return ALPHABET[ALPHABET.index(last) ^ 1]


def invalid_signatures() -> Iterator[Json]:
    good = token(claims())
    yield bad("foreign key", token(claims(), FOREIGN), "unknown_key")
    yield bad("foreign key under a known kid", token(claims(), FOREIGN, kid=FIRST.kid), "bad_signature")
    yield bad("kid of the other key", good.replace(FIRST.kid, SECOND.kid), "bad_signature")
    payload = b64(json.dumps(claims(scope="ops:admin")).encode())
    yield bad("another payload", f"v1.{FIRST.kid}.{payload}.{good.split('.')[3]}", "bad_signature")
    yield bad("salt without its length", unsalted(), "bad_signature")
    raw = base64.urlsafe_b64decode(good.split(".")[3] + "==")
    more = raw[:32] + (int.from_bytes(raw[32:], "little") + ORDER).to_bytes(32, "little")
    yield bad("signature with S + L", f"{good.rsplit('.', 1)[0]}.{b64(more)}", "bad_signature")
    refresh = token(claims(typ="refresh"))
    yield bad("refresh token as access token", refresh, "wrong_type")
    yield bad("access token as assertion", good, "wrong_type", typ="assertion")


def unsalted() -> str:
    value = f"v1.{FIRST.kid}.{b64(json.dumps(claims()).encode())}"
    return f"{value}.{b64(FIRST.private.sign(value.encode()))}"


def invalid_claims() -> Iterator[Json]:
    yield bad("not JSON", seal(b"anna", FIRST, "access"), "malformed")
    yield bad("not UTF-8", seal(b'{"iss":"\xff"}', FIRST, "access"), "malformed")
    yield bad("an array", seal(b"[]", FIRST, "access"), "malformed")
    for name in claims():
        if name != "typ":
            yield bad(f"no {name}", token(claims(**{name: ...})), "malformed")
    yield bad("no typ", token(claims(typ=...), salt="access"), "malformed")
    yield bad("exp as text", token(claims(exp=str(NOW + 600))), "malformed")
    yield bad("exp as a fraction", token(claims(exp=NOW + 600.5)), "malformed")
    yield bad("exp not later than iat", token(claims(exp=NOW)), "malformed")
    yield bad("negative time", token(claims(iat=-1)), "malformed")
    yield bad("time beyond 2^53", token(claims(exp=2**53)), "malformed")
    yield bad("empty subject", token(claims(sub="")), "malformed")
    yield bad("two spaces between scopes", token(claims(scope="orders:read  stock:read")), "malformed")
    yield bad("a scope for everything", token(claims(scope="*")), "malformed")
    yield bad("typ is not the salt", token(claims(typ="refresh"), salt="access"), "wrong_type")
    yield bad("other issuer", token(claims(iss="atoll-gateway")), "wrong_issuer")
    yield bad("other audience", token(claims(aud="orders")), "wrong_audience")
    yield bad("issuer's clock 6 s ahead", token(claims(iat=NOW + 6, nbf=NOW + 6)), "clock_skew")
    yield bad("not yet", token(claims(nbf=NOW + 6)), "not_yet_valid")
    yield bad("expired beyond the leeway", token(claims()), "expired", now=NOW + 605)


def key_sets() -> Json:
    entries = [{"kid": key.kid, "key": b64(key.raw)} for key in (FIRST, SECOND)]

    def document(content: Json, key: Key = ROOT, salt: str = "keyset", **options: str) -> str:
        return seal(json.dumps(content, separators=(",", ":")).encode(), key, salt, **options)

    good = document({"version": 7, "keys": entries})
    borrowed = [{"kid": FIRST.kid, "key": b64(SECOND.raw)}]
    respelled = [{"kid": FIRST.kid, "key": b64(FIRST.raw)[:-1] + sibling(b64(FIRST.raw)[-1])}]
    short = [{"kid": FIRST.kid, "key": b64(FIRST.raw[:31])}]
    cases = [
        ("other root", document({"version": 7, "keys": entries}, OTHER_ROOT), "unknown_key"),
        (
            "other root under this kid",
            document({"version": 7, "keys": entries}, OTHER_ROOT, kid=ROOT.kid),
            "bad_signature",
        ),
        ("salt of a token", document({"version": 7, "keys": entries}, salt="access"), "bad_signature"),
        ("borrowed kid", document({"version": 7, "keys": borrowed}), "malformed"),
        ("key in another spelling", document({"version": 7, "keys": respelled}), "malformed"),
        ("key of 31 bytes", document({"version": 7, "keys": short}), "malformed"),
        ("no version", document({"keys": entries}), "malformed"),
        ("version 0", document({"version": 0, "keys": entries}), "malformed"),
        ("33 keys", document({"version": 7, "keys": entries[:1] * 33}), "malformed"),
        ("older than stored", document({"version": 6, "keys": entries}), "old_version"),
        ("too long", "v1." + "a" * 16382, "too_long"),
    ]
    return {
        "minimum_version": 7,
        "valid": [
            {"name": "two keys", "document": good, "version": 7, "kids": [FIRST.kid, SECOND.kid]},
            {"name": "no key", "document": document({"version": 8, "keys": []}), "version": 8, "kids": []},
        ],
        "invalid": [{"name": name, "document": text, "error": error} for name, text, error in cases],
    }


def scopes() -> list[Json]:
    rows = [
        ("orders:*", "orders:read", True),
        ("orders:*", "orders:read:all", True),
        ("orders:*", "orders:read:*", True),
        ("orders:*", "orders:*", True),
        ("orders:*", "orders", False),
        ("orders:*", "ordersx:read", False),
        ("orders:*", "stock:read", False),
        ("orders:read", "orders:read", True),
        ("orders:read", "orders:read:all", False),
        ("orders:read", "orders:*", False),
        ("orders:read:*", "orders:read", False),
        ("stock:read orders:*", "orders:write", True),
        ("*", "orders:read", False),
        ("*", "*", False),
        (":*", ":read", False),
        ("orders:*", "orders:", False),
        ("orders:*", "orders:read stock:read", False),
        ("orders:**", "orders:read", False),
        ("or*", "orders", False),
        ("", "orders:read", False),
        ("orders:read", "", False),
        ("", "", False),
        ("Orders:read", "Orders:read", False),
    ]
    return [{"granted": granted, "needed": needed, "allowed": allowed} for granted, needed, allowed in rows]


def keys() -> Json:
    named = {"first": FIRST, "second": SECOND, "foreign": FOREIGN, "root": ROOT, "other root": OTHER_ROOT}
    return {
        name: {
            "secret": key.seed.hex(),
            "public": key.raw.hex(),
            "kid": key.kid,
            "in_key_set": name in ("first", "second"),
        }
        for name, key in named.items()
    }


def documents() -> dict[str, str]:
    """File name → content."""
    contents = {
        "keys.json": keys(),
        "valid.json": list(valid()),
        "invalid.json": list(invalid()),
        "key-sets.json": key_sets(),
        "scopes.json": scopes(),
    }
    return {name: json.dumps(content, indent=1, ensure_ascii=False) + "\n" for name, content in contents.items()}


if __name__ == "__main__":
    VECTORS.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (VECTORS / name).write_text(text, encoding="utf-8")
