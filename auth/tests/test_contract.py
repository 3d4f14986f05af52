from typing import Any

import yaml
from aiohttp import web
from world import AUTH

from atoll_auth.routes import routes
from atoll_auth.settings import Settings


def test_contract_describes_exactly_the_routes() -> None:
    document: Any = yaml.safe_load((AUTH / "contract" / "http.openapi.yaml").read_text(encoding="utf-8"))
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    served = {(route.method, route.path) for route in routes if isinstance(route, web.RouteDef)}
    assert described == served


def test_settings_have_the_documented_defaults() -> None:
    own = Settings.from_environment({})
    assert (own.access_seconds, own.refresh_seconds, own.rotate_seconds) == (600, 2_592_000, 2_592_000)
    assert own == Settings()
    assert Settings.from_environment({"AUTH_PUBLIC_URL": "https://shop.example/"}).public_url == "https://shop.example"
