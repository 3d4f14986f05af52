"""Every endpoint through a real server, with the broker away."""

import asyncio
import statistics
import time
from base64 import b64encode
from typing import Any

import pytest
from aiohttp import ClientResponse
from world import CLIENT_ID, CLIENT_SECRET, NOW, Caller, as_client, assertion

from atoll_auth import passwords
from atoll_token import SigningKey, TokenError
from conftest import Start

CREDENTIALS = {"grant_type": "client_credentials", **as_client()}


def basic(client_id: str = CLIENT_ID, client_secret: str = CLIENT_SECRET) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{client_id}:{client_secret}".encode()).decode()}


async def expect(answer: ClientResponse, status: int, error: str) -> Any:
    """An error in OAuth's shape."""
    body = await answer.json()
    assert (answer.status, body["error"]) == (status, error), body
    assert body["error_description"].isascii()
    assert answer.headers["Cache-Control"] == "no-store"
    return body


async def expect_problem(answer: ClientResponse, status: int, code: str) -> Any:
    body = await answer.json(content_type="application/problem+json")
    assert (answer.status, body["code"]) == (status, code), body
    return body


# ---- the way in -------------------------------------------------------------------------------------------------


async def test_it_serves_with_the_broker_away(auth: Caller) -> None:
    ready = await auth.client.get("/ready")
    assert (ready.status, (await ready.json())["degraded"]) == (200, ["bus"])
    assert (await auth.client.get("/live")).status == 200
    await auth.client_token()


async def test_only_the_gateway_comes_in(auth: Caller) -> None:
    async def call(*values: str) -> ClientResponse:
        return await auth.client.get("/auth/keys", headers=[("Atoll-Assertion", value) for value in values])

    good = assertion(auth.keys.gateway)
    assert (await call(good)).status == 200
    await expect_problem(await call(), 401, "assertion_missing")
    await expect_problem(await call(good, good), 401, "assertion_missing")
    await expect_problem(await call(assertion(SigningKey.generate())), 401, "unknown_key")
    await expect_problem(await call(assertion(auth.keys.gateway, aud="orders")), 401, "wrong_audience")
    await expect_problem(await call(assertion(auth.keys.gateway, iat=NOW, nbf=NOW, exp=NOW + 30)), 401, "expired")


@pytest.mark.parametrize("path", ["/auth/token", "/auth/login", "/auth/revoke", "/auth/introspect"])
async def test_each_post_is_behind_the_gateway(auth: Caller, path: str) -> None:
    await expect_problem(await auth.client.post(path, data=CREDENTIALS), 401, "assertion_missing")


async def test_nothing_may_be_cached(auth: Caller) -> None:
    for path in ("/auth/keys", "/auth/.well-known/oauth-authorization-server", "/auth/nothing"):
        assert (await auth.get(path)).headers["Cache-Control"] == "no-store"


# ---- clients ----------------------------------------------------------------------------------------------------


async def test_client_gets_a_token(auth: Caller) -> None:
    answer = await auth.form("/auth/token", CREDENTIALS)
    body = await answer.json()
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 600, "orders:* sales:* stock:*")
    assert "refresh_token" not in body
    assert answer.headers["Cache-Control"] == "no-store"
    claims = await auth.verify(body["access_token"])
    assert (claims.sub, claims.client_id, claims.exp - claims.iat) == (CLIENT_ID, CLIENT_ID, 600)


async def test_client_may_use_basic(auth: Caller) -> None:
    for secret in (CLIENT_SECRET, "a+secret+of+demo%27s"):
        answer = await auth.form("/auth/token", {"grant_type": "client_credentials"}, **basic(client_secret=secret))
        assert answer.status == 200


async def test_client_gets_less_if_it_asks_for_less(auth: Caller) -> None:
    body = await auth.client_token(scope="orders:read stock:write")
    assert body["scope"] == (await auth.verify(body["access_token"])).scope == "orders:read stock:write"


@pytest.mark.parametrize("scope", ["ops:read", "orders:read ops:admin", "*", "orders", "orders:read  sales:read"])
async def test_client_gets_no_more_than_allowed(auth: Caller, scope: str) -> None:
    await expect(await auth.form("/auth/token", {**CREDENTIALS, "scope": scope}), 400, "invalid_scope")


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        (as_client(client_secret="wrong secret"), {}),
        (as_client(client_id="nobody"), {}),
        (as_client("anna", "anna's password"), {}),  # a person is no client
        ({}, {}),
        ({"client_id": CLIENT_ID}, {}),
        (as_client(client_id="x" * 201), {}),
        (as_client(client_secret="x" * 257), {}),
        ({}, basic(client_secret="wrong secret")),
        ({}, {"Authorization": "Basic !!!"}),
        ({}, {"Authorization": "Basic " + b64encode(b"no colon").decode()}),
        ({}, {"Authorization": "Bearer token"}),
    ],
)
async def test_wrong_client_credentials(auth: Caller, form: dict[str, str], headers: dict[str, str]) -> None:
    answer = await auth.form("/auth/token", {"grant_type": "client_credentials", **form}, **headers)
    await expect(answer, 401, "invalid_client")
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": ""}, "invalid_request"),
        ({"grant_type": "password", "username": "anna", "password": "anna's password"}, "unsupported_grant_type"),
        ({"grant_type": "refresh_token"}, "invalid_request"),
        ([*CREDENTIALS.items(), ("scope", "orders:read"), ("scope", "sales:read")], "invalid_request"),
        ([(f"field{number}", "x") for number in range(30)], "invalid_request"),
    ],
)
async def test_forms_that_are_not_understood(auth: Caller, form: Any, error: str) -> None:
    await expect(await auth.form("/auth/token", form), 400, error)


async def test_credentials_in_two_places(auth: Caller) -> None:
    await expect(await auth.form("/auth/token", CREDENTIALS, **basic()), 400, "invalid_request")
    grant = {"grant_type": "client_credentials"}
    await expect(await auth.form("/auth/token", {**grant, "client_id": "other"}, **basic()), 400, "invalid_request")
    assert (await auth.form("/auth/token", {**grant, "client_id": CLIENT_ID}, **basic())).status == 200


async def test_bodies_that_are_no_form(auth: Caller) -> None:
    async def post(**arguments: Any) -> ClientResponse:
        return await auth.client.post("/auth/token", **arguments)

    form = auth.headers(**{"Content-Type": "application/x-www-form-urlencoded"})
    await expect(await post(json=CREDENTIALS, headers=auth.headers()), 400, "invalid_request")
    await expect(await post(data=b"grant_type=\xff", headers=form), 400, "invalid_request")
    await expect(await post(data=b"x", headers={**form, "Content-Encoding": "gzip"}), 400, "invalid_request")
    assert (await post(data=b"x" * 20_000, headers=form)).status == 413


# ---- people -----------------------------------------------------------------------------------------------------


async def test_person_logs_in(auth: Caller) -> None:
    answer = await auth.login()
    assert answer.headers["Cache-Control"] == "no-store"
    body = await answer.json()
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 600, "ops:admin ops:operate ops:read")
    claims = await auth.verify(body["access_token"])
    assert (claims.sub, claims.client_id, claims.aud, claims.iss) == ("anna", None, "atoll", "atoll-auth")


async def test_role_decides_the_scope(auth: Caller) -> None:
    assert (await auth.logged_in(username="vera", password="vera's password"))["scope"] == "ops:read"
    assert (await auth.logged_in(scope="ops:read"))["scope"] == "ops:read"
    problem = await expect_problem(await auth.login("vera", "vera's password", scope="ops:admin"), 422, "invalid_scope")
    assert problem["field"] == "scope"


@pytest.mark.parametrize(
    ("username", "password"),
    [("anna", "wrong password"), ("nobody", "anna's password"), (CLIENT_ID, CLIENT_SECRET), ("no name!", "anything")],
)
async def test_wrong_logins_have_one_answer(auth: Caller, username: str, password: str) -> None:
    problem = await expect_problem(await auth.login(username, password), 401, "invalid_credentials")
    problem.pop("instance", None)
    assert problem["detail"] == "The user name or the password is wrong"
    assert "field" not in problem


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"username": "anna"}, "password"),
        ({"username": "", "password": "x"}, "username"),
        ({"username": "anna", "password": "x" * 257}, "password"),
        ({"username": "anna", "password": "x", "admin": True}, "admin"),
        ({"username": ["anna"], "password": "x"}, "username"),
    ],
)
async def test_login_names_the_field_at_fault(auth: Caller, body: Any, field: str) -> None:
    answer = await auth.client.post("/auth/login", json=body, headers=auth.headers())
    assert (await answer.json(content_type=None))["field"] == field
    assert answer.status == 422


async def test_unknown_name_takes_as_long_as_a_wrong_password(auth: Caller) -> None:
    """Coarse: medians of some, in turn, so that both see the same machine."""
    taken: dict[str, list[float]] = {"anna": [], "nobody": []}
    for _ in range(15):
        for username, times in taken.items():
            began = time.perf_counter()
            assert (await auth.login(username, "wrong password")).status == 401
            times.append(time.perf_counter() - began)
    known, unknown = (statistics.median(times) for times in taken.values())
    assert 0.5 < known / unknown < 2, f"known {known * 1000:.1f} ms, unknown {unknown * 1000:.1f} ms"


# ---- throttle and pool ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("username", ["anna", "nobody"])
async def test_guessing_at_an_account_is_slowed(auth: Caller, username: str) -> None:
    for number in range(20):
        auth.address = f"192.0.2.{number}"
        assert (await auth.login(username, "wrong password")).status == 401
    answer = await auth.login(username, "anna's password")
    await expect_problem(answer, 429, "throttled")
    assert answer.headers["Retry-After"] == "15"
    auth.clock.now += 15
    assert (await auth.login(username, "anna's password")).status == (200 if username == "anna" else 401)


async def test_guessing_from_an_address_is_slowed(auth: Caller) -> None:
    for number in range(30):
        auth.address = f"2001:db8::{number:x}"  # one /64: one subscriber
        assert (await auth.login(f"user{number}", "wrong password")).status == 401
    answer = await auth.login()
    await expect_problem(answer, 429, "throttled")
    assert answer.headers["Retry-After"] == "3"
    auth.address = "2001:db8:0:1::1"
    await auth.logged_in()


async def test_guessing_does_not_lock_out_whoever_knows_the_secret(auth: Caller) -> None:
    await auth.logged_in()
    for number in range(40):
        await auth.login(f"user{number}", "wrong password")
    await auth.client_token()  # a client, from the address of who guesses at people's passwords
    await auth.logged_in()
    for number in range(30):
        auth.address = f"192.0.2.{number + 2}"
        await auth.login("anna", "wrong password")
        await auth.form("/auth/token", {**CREDENTIALS, "client_secret": "wrong secret"})
    auth.address = "192.0.2.1"
    await auth.logged_in()
    await auth.client_token()


async def test_guessing_at_a_client_from_an_address_is_slowed(auth: Caller) -> None:
    for number in range(30):
        wrong = {**CREDENTIALS, "client_id": f"client{number}"}
        await expect(await auth.form("/auth/token", wrong), 401, "invalid_client")
    answer = await auth.form("/auth/token", CREDENTIALS)
    await expect(answer, 429, "temporarily_unavailable")
    assert answer.headers["Retry-After"] == "3"


async def test_right_secrets_are_never_slowed(auth: Caller) -> None:
    for _ in range(15):
        await auth.client_token()


async def test_full_pool_answers_at_once(auth: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAITING_MAX", 0)
    answers = await asyncio.gather(*(auth.form("/auth/token", CREDENTIALS) for _ in range(50)))
    busy = [answer for answer in answers if answer.status == 503]
    assert busy, "fifty at once found room for all"
    await expect(busy[0], 503, "temporarily_unavailable")
    assert busy[0].headers["Retry-After"] == "1"
    assert {answer.status for answer in answers} == {200, 503}, "who knows the secret is not taken for a guesser"
    await auth.client_token()


# ---- refresh ----------------------------------------------------------------------------------------------------


async def test_login_is_renewed_with_a_new_pair(auth: Caller) -> None:
    first = await auth.logged_in()
    answer = await auth.renew(first["refresh_token"])
    second = await answer.json()
    assert (answer.status, second["scope"]) == (200, first["scope"])
    assert second["refresh_token"] != first["refresh_token"]
    assert (await auth.verify(second["access_token"])).sub == "anna"
    assert (await auth.renew(second["refresh_token"])).status == 200


async def test_reuse_ends_the_whole_login(auth: Caller) -> None:
    first, bystander = await auth.logged_in(), await auth.logged_in()
    second = await (await auth.renew(first["refresh_token"])).json()
    await expect(await auth.renew(first["refresh_token"]), 400, "invalid_grant")
    await expect(await auth.renew(second["refresh_token"]), 400, "invalid_grant")
    for token in (first["access_token"], second["access_token"]):
        assert not await auth.is_active(token)
    assert (await auth.renew(bystander["refresh_token"])).status == 200


async def test_of_two_at_once_one_wins_and_the_login_ends(auth: Caller) -> None:
    first = await auth.logged_in()
    answers = await asyncio.gather(*(auth.renew(first["refresh_token"]) for _ in range(2)))
    assert sorted(answer.status for answer in answers) == [200, 400]
    second = await next(answer for answer in answers if answer.status == 200).json()
    await expect(await auth.renew(second["refresh_token"]), 400, "invalid_grant")


async def test_renewal_may_narrow_but_not_widen(auth: Caller) -> None:
    first = await auth.logged_in(scope="ops:read ops:operate")
    await expect(await auth.renew(first["refresh_token"], scope="ops:admin"), 400, "invalid_scope")
    second = await (await auth.renew(first["refresh_token"], scope="ops:read")).json()
    assert second["scope"] == "ops:read"
    third = await (await auth.renew(second["refresh_token"])).json()
    assert third["scope"] == "ops:operate ops:read", "the login keeps what it was granted"


async def test_refresh_token_expires(start: Start) -> None:
    auth = await start(refresh_seconds=100)
    first = await auth.logged_in()
    auth.clock.now += 105
    await expect(await auth.renew(first["refresh_token"]), 400, "invalid_grant")


async def test_only_our_own_unaltered_refresh_tokens_count(auth: Caller) -> None:
    first = await auth.logged_in()
    token = first["refresh_token"]
    altered = token[:60] + ("A" if token[60] != "A" else "B") + token[61:]
    for wrong in (altered, first["access_token"], "v1.x.y.z", "x" * 5000):
        await expect(await auth.renew(wrong), 400, "invalid_grant")
    assert (await auth.renew(token)).status == 200


# ---- revocation and introspection -------------------------------------------------------------------------------


async def test_revoked_refresh_token_ends_the_login(auth: Caller) -> None:
    login = await auth.logged_in()
    answer = await auth.form("/auth/revoke", {"token": login["refresh_token"], "token_type_hint": "refresh_token"})
    assert (answer.status, await answer.text()) == (200, "")
    assert not await auth.is_active(login["access_token"])
    await expect(await auth.renew(login["refresh_token"]), 400, "invalid_grant")


async def test_revoked_access_token_leaves_the_login(auth: Caller) -> None:
    login = await auth.logged_in()
    assert (await auth.form("/auth/revoke", {"token": login["access_token"]})).status == 200
    assert not await auth.is_active(login["access_token"])
    assert (await auth.renew(login["refresh_token"])).status == 200


async def test_client_revokes_its_own_tokens_only(auth: Caller) -> None:
    token = (await auth.client_token())["access_token"]
    await expect(await auth.form("/auth/revoke", {"token": token}), 401, "invalid_client")
    stranger = as_client("other", "another secret")
    await expect(await auth.form("/auth/revoke", {"token": token, **stranger}), 400, "unauthorized_client")
    assert await auth.is_active(token)
    assert (await auth.form("/auth/revoke", {"token": token, **as_client()})).status == 200
    assert not await auth.is_active(token)


async def test_revoking_nonsense_is_no_error_but_wrong_credentials_are(auth: Caller) -> None:
    assert (await auth.form("/auth/revoke", {"token": "nonsense"})).status == 200
    await expect(await auth.form("/auth/revoke", {}), 400, "invalid_request")
    wrong = as_client(client_secret="wrong secret")
    await expect(await auth.form("/auth/revoke", {"token": "nonsense", **wrong}), 401, "invalid_client")


async def test_introspection_tells_a_client_everything(auth: Caller) -> None:
    token = (await auth.client_token(scope="orders:read"))["access_token"]
    body = await (await auth.form("/auth/introspect", {"token": token}, **basic())).json()
    assert len(body.pop("jti")) == 22
    assert body == {
        "active": True,
        "token_type": "Bearer",
        "iss": "atoll-auth",
        "sub": CLIENT_ID,
        "aud": "atoll",
        "scope": "orders:read",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 600,
        "client_id": CLIENT_ID,
    }


async def test_introspection_knows_what_is_over(auth: Caller) -> None:
    login = await auth.logged_in()
    assert await auth.is_active(login["refresh_token"])
    await auth.renew(login["refresh_token"])
    assert not await auth.is_active(login["refresh_token"]), "used"
    assert not await auth.is_active("nonsense")
    auth.clock.now += 605
    assert not await auth.is_active(login["access_token"]), "expired"


async def test_introspection_needs_a_client(auth: Caller) -> None:
    token = (await auth.client_token())["access_token"]
    await expect(await auth.form("/auth/introspect", {"token": token}), 401, "invalid_client")
    await expect(await auth.form("/auth/introspect", as_client()), 400, "invalid_request")


# ---- what everybody may know ------------------------------------------------------------------------------------


async def test_tokens_are_altered_in_vain(auth: Caller) -> None:
    token = (await auth.client_token())["access_token"]
    with pytest.raises(TokenError, match="bad_signature"):
        await auth.verify(token[:40] + ("A" if token[40] != "A" else "B") + token[41:])


async def test_metadata_names_the_endpoints(auth: Caller) -> None:
    body = await (await auth.get("/auth/.well-known/oauth-authorization-server")).json()
    assert body["issuer"] == "atoll-auth"
    for name in ("token", "revocation", "introspection"):
        answer = await auth.form(body[f"{name}_endpoint"], {})
        assert answer.status in (400, 401), name


# ---- restarts ---------------------------------------------------------------------------------------------------


async def test_restart_keeps_keys_and_logins(start: Start) -> None:
    before = await start()
    login = await before.logged_in()
    await before.client.close()
    after = await start()
    assert (await after.verify(login["access_token"])).sub == "anna"
    assert await after.is_active(login["access_token"])
    assert (await after.renew(login["refresh_token"])).status == 200
    await expect(await after.renew(login["refresh_token"]), 400, "invalid_grant")
