"""Wiring: Streamlit as an ASGI application with our guard in front, our small pages beside it, and one poller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from atoll_dashboard import guard, health, sessions, states
from atoll_dashboard import world as here
from atoll_dashboard.config import Options
from atoll_dashboard.gateway import Gateway
from atoll_dashboard.jaeger import Jaeger
from atoll_dashboard.login import Login
from atoll_dashboard.poller import Poller
from atoll_dashboard.sessions import Sessions
from atoll_dashboard.warden import Warden
from atoll_dashboard.world import World

_HERE = Path(__file__).parent
_PRIMARY = ("#1F5FBF", "#2F6BCB")  # of buttons, with white on it; links have colours of their own


def settings(options: Options) -> dict[str, Any]:
    """Streamlit's options. `App.run` reads no STREAMLIT_… variables and binds all interfaces unless it is told."""
    return {
        "server.address": options.host,
        "server.port": options.port,
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.runOnSave": False,
        "server.enableXsrfProtection": True,
        "server.maxUploadSize": 1,
        "server.maxMessageSize": 20,  # MB, to a page: a trace of thousands of spans
        "server.maxWidgetStateSize": 1,  # MB, from a page
        "server.enableAgentApi": False,
        "server.enableStaticServing": False,
        "server.websocketPingInterval": 20,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "client.showSidebarNavigation": True,
        "browser.gatherUsageStats": False,
        "runner.postScriptGC": False,  # a full collection after every fragment, for every viewer
        "runner.magicEnabled": False,
        "logger.level": "warning",
        "logger.hideWelcomeMessage": True,
        **_theme("light", _PRIMARY[0], "#FBFAF9", "#F1EFEC", "#2A2826"),
        **_theme("dark", _PRIMARY[1], "#121315", "#1C1E21", "#EDEAE6"),
    }


def _theme(name: str, primary: str, back: str, second: str, text: str) -> dict[str, Any]:
    ink, paper = states.COLOURS[name]["down"]
    return {
        f"theme.{name}.primaryColor": primary,
        f"theme.{name}.backgroundColor": back,
        f"theme.{name}.secondaryBackgroundColor": second,
        f"theme.{name}.textColor": text,
        f"theme.{name}.redTextColor": ink,
        f"theme.{name}.redBackgroundColor": paper,
    }


def make_world(options: Options) -> World:
    """The process's handles."""
    gateway = Gateway(options.gateway, options.client)
    kept = Sessions(sessions.key(options.data), options.session_seconds, options.idle_seconds)
    return World(options, Poller(gateway), kept, gateway, Jaeger(options.jaeger, options.jaeger_link))


def make_app(options: Options) -> st.App:
    """The whole application."""
    made = make_world(options)
    here.begin(made)
    login = Login(sessions.key(options.data))
    warden = Warden(made.sessions, made.gateway)

    @asynccontextmanager
    async def lifespan(_: st.App) -> AsyncIterator[dict[str, Any] | None]:
        made.poller.start()
        warden.start()
        yield None
        warden.stop()
        made.poller.stop()

    index = (Path(st.__file__).parent / "static" / "index.html").read_bytes()
    return st.App(
        str(_HERE / "entry" / "main.py"),
        lifespan=lifespan,
        routes=[
            Route("/live", health.live),
            Route("/ready", health.ready),
            Route("/metrics", health.metrics),
            Route("/login", login.show, methods=["GET"]),
            Route("/login", login.enter, methods=["POST"]),
            Route("/logout", login.ask_leave, methods=["GET"]),
            Route("/logout", login.leave, methods=["POST"]),
            Route("/atoll/focus-cancel.js", _script),
            Route("/atoll/watch.js", _script),
            Route("/atoll/session.json", _still_in),
        ],
        middleware=[
            Middleware(
                guard.Guard,
                sessions=made.sessions,
                cookie=options.session_cookie,
                port=options.port,
                origins=options.origins,
                policy=guard.policy(index),
            )
        ],
    )


async def _script(request: Request) -> Response:
    return FileResponse(_HERE / request.url.path.rsplit("/", 1)[1], media_type="text/javascript")


async def _still_in(_: Request) -> Response:
    """A page asks whether its session lives: the guard answers that."""
    return JSONResponse({}, headers={"Cache-Control": "no-store"})
