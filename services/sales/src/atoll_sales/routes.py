"""The HTTP face of sales: it reads, and nothing that it imports can write."""

import msgspec
from aiohttp import web

import atoll
import atoll.web
from atoll_sales import store
from atoll_sales.domain import Dimension
from atoll_sales.messages import Row, Sales, Total

DATABASE = web.AppKey("database", atoll.Database)
BY = (Dimension.COUNTRY, Dimension.DAY, Dimension.SKU)

routes = web.RouteTableDef()


@routes.get("/sales")
@atoll.web.requires("sales:read")
async def show_sales(request: web.Request) -> web.Response:
    by = request.query.get("by")
    if by not in BY:
        raise atoll.web.Problem(400, "bad_parameter", f"by: expected one of {', '.join(BY)}", "by")
    dimension = Dimension(by)
    sales = await request.app[DATABASE].read(lambda reader: report(reader, dimension))
    return web.Response(body=msgspec.json.encode(sales), content_type="application/json")


def report(reader: atoll.Reader, dimension: Dimension) -> Sales:
    """Rows and total of one moment: both are read in the same snapshot."""
    rows = store.rows(reader, dimension)
    return Sales(
        rows=[Row.of(key, figures) for key, figures in rows[: store.ROWS_MAX]],
        total=Total.of(store.total(reader)),
        truncated=len(rows) > store.ROWS_MAX,
    )
