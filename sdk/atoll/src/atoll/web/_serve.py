"""skeleton"""
from __future__ import annotations
from aiohttp import web
from .._options import Options


def serve(app: web.Application, options: Options) -> None:
    """Runs `app` until SIGTERM or SIGINT, drains, and returns; exits with a documented code when it cannot run."""
    raise NotImplementedError
