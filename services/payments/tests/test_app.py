"""The service as it runs: health and nothing else; the broker is away."""

from pathlib import Path

from pytest_aiohttp.plugin import AiohttpClient
from support import Gateway, options

from atoll_payments.app import make_app
from atoll_payments.settings import Settings


async def test_it_is_ready_without_the_broker(tmp_path: Path, aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(make_app(options(tmp_path, Gateway()), Settings()))
    async with client.get("/ready") as response:
        assert (response.status, (await response.json())["degraded"]) == (200, ["bus"])


async def test_it_has_no_face_but_its_health(tmp_path: Path, aiohttp_client: AiohttpClient) -> None:
    app = make_app(options(tmp_path, Gateway()), Settings())
    await aiohttp_client(app)
    paths = {route.resource.canonical for route in app.router.routes() if route.resource}
    assert paths == {"/live", "/ready", "/metrics"}
