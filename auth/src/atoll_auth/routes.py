"""HTTP in. Every route is public, since who calls is what these routes find out; yet only the gateway can call them."""

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import msgspec
from aiohttp import hdrs, web

from atoll import web as atoll_web
from atoll_token import PublicKey, TokenError, VerifiedCache, Verifier

from . import messages, oauth
from .authentication import Authentication, ThrottledError, WrongCredentialsError
from .domain import ScopeError
from .heartbeat import Heartbeat
from .issuer import GrantError, Issuer
from .keyring import KeyRing
from .oauth import Credentials, OAuthError
from .passwords import BusyError
from .settings import Settings
from .store import Account

ASSERTION = "Atoll-Assertion"
CLIENT_ADDRESS = "Atoll-Client-Address"
HEALTH = frozenset({"/live", "/ready", "/metrics"})  # served by atoll.web.attach, to whoever watches

ADDRESS = web.RequestKey("auth_client_address", str)
AUTHENTICATION = web.AppKey("authentication", Authentication)
HEARTBEAT = web.AppKey("heartbeat", Heartbeat)
ISSUER = web.AppKey("issuer", Issuer)
RING = web.AppKey("ring", KeyRing)
SETTINGS = web.AppKey("settings", Settings)

routes = web.RouteTableDef()
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


# ---- who may come in --------------------------------------------------------------------------------------------


def front_door(name: str, key: PublicKey) -> Any:
    """Middleware: all but the health paths take only what the gateway sends, and so can believe the client's address.

    The gateway drops every `Atoll-…` header of a client, sets `Atoll-Client-Address` to the address that it accepted
    the connection from, and adds its assertion. A sibling that talks to us directly has no assertion.
    """
    keys = {key.kid: key}
    verifier = VerifiedCache(Verifier(keys.get, issuer="atoll-gateway", audience=name, typ="assertion"))

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in HEALTH:
            _check_assertion(request, verifier)
            request[ADDRESS] = _address(request.headers.get(CLIENT_ADDRESS, ""))
        return await handler(request)

    return admit


def _check_assertion(request: web.Request, verifier: VerifiedCache) -> None:
    assertions = request.headers.getall(ASSERTION, [])
    if len(assertions) != 1:
        raise atoll_web.Problem(401, "assertion_missing", f"Expected one {ASSERTION}, made by the gateway")
    try:
        verifier.verify(assertions[0])
    except TokenError as error:
        raise atoll_web.Problem(401, error.code, f"{ASSERTION}: {error.text}") from None


def _address(text: str) -> str:
    """The name of the address's bucket: of IPv6 the /64, which one subscriber has; all unreadable ones share one."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))
    return str(address)


async def forbid_caching(_: web.Request, response: web.StreamResponse) -> None:
    """Signal: nothing that auth says is to be kept by anybody on the way (RFC 6749, 5.1)."""
    response.headers[hdrs.CACHE_CONTROL] = "no-store"


# ---- tokens -----------------------------------------------------------------------------------------------------


@routes.post("/auth/token")
@atoll_web.public
@oauth.endpoint
async def token(request: web.Request) -> web.Response:
    form = await oauth.read_form(request)
    grant_type = oauth.required(form, "grant_type")
    if grant_type == "client_credentials":
        client = await _client(request, form)
        return _json(request.app[ISSUER].for_client(client, form.get("scope")))
    if grant_type == "refresh_token":
        return await _renewed(request, oauth.required(form, "refresh_token"), form.get("scope"))
    raise OAuthError("unsupported_grant_type", "expected client_credentials or refresh_token")


async def _renewed(request: web.Request, refresh_token: str, scope: str | None) -> web.Response:
    """Refresh tokens belong to people's logins, hence to no client: possession is what counts."""
    try:
        return _json(await request.app[ISSUER].renew(refresh_token, scope))
    except GrantError:
        request.app[HEARTBEAT].poke()  # the family may just have ended
        raise


@routes.post("/auth/login")
@atoll_web.public
async def login(request: web.Request) -> web.Response:
    wanted = await atoll_web.read_json(request, messages.Login)
    try:
        account = await request.app[AUTHENTICATION].check("user", wanted.username, wanted.password, request[ADDRESS])
        return _json(await request.app[ISSUER].for_user(account, wanted.scope))
    except (WrongCredentialsError, GrantError, ScopeError, ThrottledError, BusyError) as error:
        _raise_problem(error)


def _raise_problem(error: Exception) -> NoReturn:
    match error:
        case ScopeError():
            raise atoll_web.Problem(422, "invalid_scope", str(error), field="scope")
        case ThrottledError():
            headers = {"Retry-After": str(error.wait_seconds)}
            raise atoll_web.Problem(429, "throttled", f"Too many wrong attempts; {error}", headers=headers)
        case BusyError():
            raise atoll_web.Problem(503, "busy", "Too many logins at once; try again", headers={"Retry-After": "1"})
    raise atoll_web.Problem(401, "invalid_credentials", "The user name or the password is wrong")


@routes.post("/auth/revoke")
@atoll_web.public
@oauth.endpoint
async def revoke(request: web.Request) -> web.Response:
    """RFC 7009: a client revokes its own tokens; a person's token, whoever holds it. An unknown token is no error."""
    form = await oauth.read_form(request)
    claims = request.app[ISSUER].read(oauth.required(form, "token"))
    found = oauth.credentials(request, form)
    client = await _check(request, found) if found else None
    if claims is None:
        return web.Response()
    if claims.client_id is not None and client is None:
        raise oauth.invalid_client("expected the credentials of the client that the token was issued to")
    if claims.client_id is not None and client is not None and client.name != claims.client_id:
        raise OAuthError("unauthorized_client", "the token was issued to another client")
    await request.app[ISSUER].revoke(claims)
    request.app[HEARTBEAT].poke()
    return web.Response()


@routes.post("/auth/introspect")
@atoll_web.public
@oauth.endpoint
async def introspect(request: web.Request) -> web.Response:
    form = await oauth.read_form(request)
    await _client(request, form)
    return _json(await request.app[ISSUER].introspect(oauth.required(form, "token")))


async def _client(request: web.Request, form: dict[str, str]) -> Account:
    found = oauth.credentials(request, form)
    if found is None:
        raise oauth.invalid_client("expected client credentials, in the header or in the form")
    return await _check(request, found)


async def _check(request: web.Request, found: Credentials) -> Account:
    return await request.app[AUTHENTICATION].check("client", *found, request[ADDRESS])


# ---- what everybody may know ------------------------------------------------------------------------------------


@routes.get("/auth/keys")
@atoll_web.public
async def keys(request: web.Request) -> web.Response:
    return _json({"key_set": request.app[RING].document})


@routes.get("/auth/.well-known/oauth-authorization-server")
@atoll_web.public
async def metadata(request: web.Request) -> web.Response:
    """RFC 8414, but for `issuer`, which is the tokens' `iss` and no URL."""
    base = request.app[SETTINGS].public_url
    methods = ["client_secret_basic", "client_secret_post"]
    return _json(
        {
            "issuer": "atoll-auth",
            "token_endpoint": f"{base}/auth/token",
            "token_endpoint_auth_methods_supported": methods,
            "grant_types_supported": ["client_credentials", "refresh_token"],
            "response_types_supported": [],
            "revocation_endpoint": f"{base}/auth/revoke",
            "revocation_endpoint_auth_methods_supported": [*methods, "none"],
            "introspection_endpoint": f"{base}/auth/introspect",
            "introspection_endpoint_auth_methods_supported": methods,
            "atoll_login_endpoint": f"{base}/auth/login",
            "atoll_keys_endpoint": f"{base}/auth/keys",
        }
    )


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
