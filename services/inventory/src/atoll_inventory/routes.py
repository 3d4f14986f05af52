"""The HTTP face of inventory: look at the stock of a SKU, and adjust it by hand."""

import msgspec
from aiohttp import web

import atoll
import atoll.web
from atoll_inventory import bodies, messages, reserving, store
from atoll_inventory.domain import SKU, InvalidError, Line
from atoll_inventory.settings import Settings

DATABASE = web.AppKey("database", atoll.Database)
SETTINGS = web.AppKey("settings", Settings)

routes = web.RouteTableDef()


@routes.get("/stock/{sku}")
@atoll.web.requires("stock:read")
async def show_stock(request: web.Request) -> web.Response:
    """A SKU that never moved has the opening stock: that is what an order for it would find."""
    sku = request.match_info["sku"]
    if not SKU.fullmatch(sku):
        raise atoll.web.Problem(404, "not_found", f"Not a SKU: expected a text that matches {SKU.pattern}", "sku")
    opening = request.app[SETTINGS].opening_stock
    stock = await request.app[DATABASE].read(lambda reader: store.stock(reader, sku, opening))
    return web.Response(body=msgspec.json.encode(stock), content_type="application/json")


@routes.post("/stock/adjustments")
@atoll.web.requires("stock:write")
async def adjust_stock(request: web.Request) -> web.Response:
    """Applies all lines or none; its movements, its event and the answer to its Idempotency-Key are one commit."""
    body, lines = await read_adjustment(request)
    request_hash = await atoll.web.body_hash(request)
    opening = request.app[SETTINGS].opening_stock

    def work(tx: atoll.Transaction) -> atoll.web.Answer:
        return atoll.web.idempotent(tx, request, request_hash, lambda: adjusted(tx, body.reference, lines, opening))

    try:
        return (await request.app[DATABASE].write(work)).response()
    except atoll.EventTooLargeError:
        raise atoll.web.Problem(413, "too_large", "The lines are more than one event can carry", "lines") from None


async def read_adjustment(request: web.Request) -> tuple[messages.AdjustmentBody, list[Line]]:
    body = await atoll.web.read_json(request, messages.AdjustmentBody)
    await bodies.refuse_duplicate_members(request)
    try:
        return body, body.accepted()
    except InvalidError as error:
        raise atoll.web.Problem(422, "validation", error.reason, error.field) from None


def adjusted(tx: atoll.Transaction, reference: str, lines: list[Line], opening: int) -> atoll.web.Answer:
    """The answer is the same each time that it is sent. Raises Problem 409, naming what stands in the way."""
    try:
        reserving.adjust(tx, reference, lines, opening)
    except reserving.ReferenceTakenError:
        detail = f"The reference {reference} was used before for other lines"
        raise atoll.web.Problem(409, "reference_conflict", detail, "reference") from None
    except reserving.OverdraftError as error:
        detail = f"There is not that much of {error.sku} to write off"
        raise atoll.web.Problem(409, "stock_too_small", detail, f"lines[{error.index}].quantity") from None
    return atoll.web.Answer(201, messages.Adjusted(reference, len(lines)))
