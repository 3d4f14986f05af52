"""The HTTP face of orders. A client sees its own orders and returns, and all of them with `orders:read:all`."""

import msgspec
from aiohttp import web

import atoll
import atoll.web
from atoll_orders import bodies, deadline, messages, store
from atoll_orders.domain import CUSTOMER_LENGTH_MAX, STATUSES, InvalidError, Invoice, Kind, Status
from atoll_orders.settings import Settings

DATABASE = web.AppKey("database", atoll.Database)
SETTINGS = web.AppKey("settings", Settings)

PAGE_DEFAULT = 50
PAGE_MAX = 200
PATHS = {Kind.ORDER: "/orders", Kind.RETURN: "/returns"}

routes = web.RouteTableDef()


@routes.post("/orders")
@atoll.web.requires("orders:write")
async def place_order(request: web.Request) -> web.Response:
    return await accept(request, Kind.ORDER)


@routes.get("/orders")
@atoll.web.requires("orders:read")
async def list_orders(request: web.Request) -> web.Response:
    return await list_page(request, Kind.ORDER)


@routes.get("/orders/{id}")
@atoll.web.requires("orders:read")
async def show_order(request: web.Request) -> web.Response:
    return await show(request, Kind.ORDER)


@routes.post("/returns")
@atoll.web.requires("orders:write")
async def receive_return(request: web.Request) -> web.Response:
    return await accept(request, Kind.RETURN)


@routes.get("/returns")
@atoll.web.requires("orders:read")
async def list_returns(request: web.Request) -> web.Response:
    return await list_page(request, Kind.RETURN)


@routes.get("/returns/{id}")
@atoll.web.requires("orders:read")
async def show_return(request: web.Request) -> web.Response:
    return await show(request, Kind.RETURN)


async def accept(request: web.Request, kind: Kind) -> web.Response:
    """Takes in an order or a return: its row, its event and the answer to its Idempotency-Key are one commit."""
    invoice = await read_invoice(request, kind)
    deadline_seconds = request.app[SETTINGS].saga_deadline_seconds
    # The path too: the same key and body on the other resource is another request.
    request_hash = f"{request.path} {await atoll.web.body_hash(request)}"

    def work(tx: atoll.Transaction) -> atoll.web.Answer:
        return atoll.web.idempotent(tx, request, request_hash, lambda: record(tx, invoice, deadline_seconds))

    try:
        return (await request.app[DATABASE].write(work)).response()
    except atoll.EventTooLargeError:
        raise too_large() from None


async def read_invoice(request: web.Request, kind: Kind) -> Invoice:
    """The invoice in the request's body. Raises Problem 413 or 422, naming the field."""
    body = await atoll.web.read_json(request, messages.InvoiceBody)
    await bodies.refuse_duplicate_members(request)
    try:
        invoice = body.accepted(kind, request[atoll.web.SUBJECT])
    except InvalidError as error:
        raise atoll.web.Problem(422, "validation", error.reason, error.field) from None
    if not messages.fits_the_bus(invoice):
        raise too_large()
    return invoice


def record(tx: atoll.Transaction, invoice: Invoice, deadline_seconds: float) -> atoll.web.Answer:
    """Stores the invoice and tells of it, if it is new. The answer is the same each time that it is sent: where it
    stands by now is asked of its own address. Raises Problem 409 if its number was used for something else."""
    stored = store.find(tx, invoice.kind, invoice.id)
    if stored is None:
        now_ms = deadline.now_ms()
        is_order = invoice.kind is Kind.ORDER
        store.add(tx, invoice, now_ms, now_ms + round(deadline_seconds * 1000) if is_order else None)
        if is_order:
            tx.publish("orders.order.placed.v1", invoice.id, messages.placed(invoice))
        else:
            tx.publish("orders.return.received.v1", invoice.id, messages.received(invoice))
    elif stored.invoice != invoice:
        detail = f"The invoice {invoice.invoice} was sent before with another content"
        raise atoll.web.Problem(409, "invoice_conflict", detail, "invoice")
    return atoll.web.Answer(202, messages.accepted(invoice), {"Location": f"{PATHS[invoice.kind]}/{invoice.id}"})


async def show(request: web.Request, kind: Kind) -> web.Response:
    stored = await request.app[DATABASE].read(lambda reader: store.find(reader, kind, request.match_info["id"]))
    owner = readable_owner(request)
    if stored is None or owner not in (None, stored.invoice.owner):  # one answer for both: ids are not to be probed
        raise atoll.web.Problem(404, "not_found", f"There is no such {kind}")
    return json_response(messages.whole(stored.invoice, stored.status, stored.reason, stored.detail))


async def list_page(request: web.Request, kind: Kind) -> web.Response:
    query = query_of(request, kind)
    return json_response(await request.app[DATABASE].read(lambda reader: store.page(reader, query)))


def query_of(request: web.Request, kind: Kind) -> store.Query:
    """The list that a request asks for. Raises Problem 400 naming the parameter."""
    given = request.query
    customer = given.get("customer")
    if customer is not None and len(customer) > CUSTOMER_LENGTH_MAX:
        raise bad_parameter("customer", f"at most {CUSTOMER_LENGTH_MAX} characters")
    limit = whole_number(request, "limit", PAGE_MAX)
    return store.Query(
        kind=kind,
        limit=PAGE_DEFAULT if limit is None else limit,
        owner=readable_owner(request),
        status=status_of(request, kind),
        customer=customer,
        before=whole_number(request, "cursor", 2**63 - 1),
    )


def status_of(request: web.Request, kind: Kind) -> Status | None:
    text = request.query.get("status")
    if text is None:
        return None
    if text not in STATUSES[kind]:
        raise bad_parameter("status", f"one of {', '.join(STATUSES[kind])}")
    return Status(text)


def whole_number(request: web.Request, name: str, maximum: int) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and 1 <= int(text) <= maximum):
        raise bad_parameter(name, f"a whole number from 1 to {maximum}")
    return int(text)


def readable_owner(request: web.Request) -> str | None:
    """Whose orders the caller may read: its own, or None for everybody's."""
    return None if "orders:read:all" in request[atoll.web.SCOPES] else request[atoll.web.SUBJECT]


def too_large() -> atoll.web.Problem:
    return atoll.web.Problem(413, "too_large", "The lines are more than one event can carry", "lines")


def bad_parameter(name: str, expected: str) -> atoll.web.Problem:
    return atoll.web.Problem(400, "bad_parameter", f"{name}: expected {expected}", name)


def json_response(body: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
