"""The keys of a system, made once per state directory; each part gets its own secrets and the public halves it needs.

    keys/PART/curve.secret curve.public broker.public     Z85 text; the CURVE key is the identity on the bus
    keys/broker/clients/PART.public                       whom the broker lets in
    keys/auth/root.key                                    signs key sets; root.pub: gateway, control
    keys/gateway/assertion.key                            signs assertions; gateway.pub: whoever it forwards to
    keys/auth/seed.json                                   the first operator and clients; auth sows each name once
    keys/dashboard/client.json                            who the dashboard is when it reads without an operator

A pair is written public half first, so a secret on disk means that the pair is whole; the copies for others are made
again at each start, which mends a directory that lost some and lets a new part in.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path

from atoll_ops.errors import OperationError
from atoll_ops.state import State, write_private

BROKER, AUTH, GATEWAY, CONTROL = "broker", "auth", "gateway", "control"
DASHBOARD, JAEGER = "dashboard", "jaeger"
#: Parts that are not on the bus, so have no CURVE key and are nobody there.
NOT_ON_THE_BUS = (DASHBOARD, JAEGER)
DASHBOARD_SCOPES = ["ops:read"]
DEMO_CLIENT = "demo"
DEMO_SCOPES = ["orders:*", "stock:*", "sales:*"]
OPERATOR = "operator"
OPERATOR_ROLE = "admin"


def ensure(state: State, parts: Iterable[str]) -> dict[str, str]:
    """Make what is missing for these parts; the secrets that belong into credentials.json.

    Key folders of the core are made even when `--only` leaves them out: their public halves are needed by the others.
    """
    names = sorted({*parts, BROKER, AUTH, GATEWAY, CONTROL}.difference(NOT_ON_THE_BUS))
    folders = {name: _folder(state.keys / name) for name in names}
    _ensure_curve(folders)
    root_public = _ensure_signing_pair(folders[AUTH] / "root.key")
    gateway_public = _ensure_signing_pair(folders[GATEWAY] / "assertion.key")
    for name, folder in folders.items():
        if name in (GATEWAY, CONTROL):
            _put(folder / "root.pub", root_public)
        if name not in (GATEWAY, BROKER):
            _put(folder / "gateway.pub", gateway_public)
    seed = folders[AUTH] / "seed.json"
    return _ensure_accounts(state, seed, _ensure_dashboard(_folder(state.keys / DASHBOARD) / "client.json", seed))


def _ensure_curve(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        if not (folder / "curve.secret").exists():
            import zmq  # only a first start needs it

            public, secret = zmq.curve_keypair()
            write_private(folder / "curve.public", public + b"\n")
            write_private(folder / "curve.secret", secret + b"\n")
    clients = _folder(folders[BROKER] / "clients")
    broker_public = (folders[BROKER] / "curve.public").read_bytes()
    for name, folder in folders.items():
        if name != BROKER:
            _put(folder / "broker.public", broker_public)
            _put(clients / f"{name}.public", (folder / "curve.public").read_bytes())


def _ensure_signing_pair(path: Path) -> bytes:
    """The public half, PEM, of an Ed25519 key that is made if it is not there."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not path.exists():
        made = Ed25519PrivateKey.generate()
        pem = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(path, pem)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise OperationError(f"{path} is no PEM private key; `./atoll reset` makes all keys anew") from error
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip


def _ensure_dashboard(path: Path, seed: Path) -> dict[str, str]:
    """The dashboard's own client: it reads what the fleet does. For every act it needs an operator's token.

    A lost file is made again from the seed, whose secret auth has taken already.
    """
    clients = json.loads(seed.read_text())["clients"] if seed.exists() else []
    known = next((one["client_secret"] for one in clients if one["client_id"] == DASHBOARD), None)
    client = {"client_id": DASHBOARD, "client_secret": known or secrets.token_urlsafe(32)}
    _put(path, json.dumps(client).encode() + b"\n")
    return client


def _ensure_accounts(state: State, seed: Path, dashboard: dict[str, str]) -> dict[str, str]:
    """Secrets of the demo client and the operator: made once, kept in credentials.json, told to auth by the seed.

    The demo client is the seed's first: `_seeded` finds it there.
    """
    names = ("client_id", "client_secret", "username", "password")
    known = state.read_credentials() if state.credentials.exists() else {}
    if not all(name in known for name in names):
        known = _seeded(seed) or {
            "client_id": DEMO_CLIENT,
            "client_secret": secrets.token_urlsafe(32),
            "username": OPERATOR,
            "password": secrets.token_urlsafe(16),
        }
    client = {"client_id": known["client_id"], "client_secret": known["client_secret"], "scopes": DEMO_SCOPES}
    user = {"username": known["username"], "password": known["password"], "role": OPERATOR_ROLE}
    clients = [client, dashboard | {"scopes": DASHBOARD_SCOPES}]
    _put(seed, json.dumps({"users": [user], "clients": clients}, indent=2).encode() + b"\n")
    return {name: known[name] for name in names}


def _seeded(seed: Path) -> dict[str, str] | None:
    """The same secrets out of the seed, which auth may have taken already, when credentials.json was lost."""
    if not seed.exists():
        return None
    document = json.loads(seed.read_text())
    client, user = document["clients"][0], document["users"][0]
    return {name: client[name] for name in ("client_id", "client_secret")} | {
        name: user[name] for name in ("username", "password")
    }


def _folder(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def _put(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        write_private(path, content)
