"""The front door of Atoll: routes, tokens, assertions, and the mesh policy for HTTP."""

__version__ = "0.1.0"
