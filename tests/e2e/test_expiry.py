"""A token that was good is refused once its time is over, and the client is told that this is why."""

from __future__ import annotations

from pathlib import Path

from fleet import fleet, write_mesh
from polling import poll_until

ACCESS_SECONDS = 10
#: Clocks of issuer and verifier may differ by so much.
LEEWAY_SECONDS = 5


def test_an_expired_token_is_refused_by_name(state: Path, tmp_path: Path) -> None:
    mesh = write_mesh(tmp_path / "mesh.toml", settings={"auth": {"AUTH_ACCESS_SECONDS": str(ACCESS_SECONDS)}})
    with fleet(state, mesh) as shop:
        granted = shop.grant({"grant_type": "client_credentials"}).body
        assert granted["expires_in"] == ACCESS_SECONDS
        token = granted["access_token"]
        assert shop.call("GET", "/orders", token=token).status == 200
        refused = poll_until(
            "the token to expire",
            lambda: shop.call("GET", "/orders", token=token),
            lambda answer: answer.status == 401,
            seconds=(ACCESS_SECONDS + LEEWAY_SECONDS) * 3,
            every=0.5,
        )
        assert refused.code == "expired", refused.raw
        assert 'error="invalid_token"' in refused.headers["www-authenticate"]
