"""`/docs`: the operations by service, readable without a script, a font or a style sheet from anywhere else.

Everything in it that a service announced is escaped, and the page's policy forbids scripts altogether.
"""

from __future__ import annotations

from html import escape
from typing import Any

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}

_STYLE = """
:root{color-scheme:light dark;--line:#8885;--soft:#8882;--accent:light-dark(#0b6477,#6fd3e6)}
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{margin:0 0 .25rem}h2{margin:2.5rem 0 .5rem;padding-bottom:.25rem;border-bottom:1px solid var(--line)}
a{color:var(--accent)}nav a{margin-right:1rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.45rem .75rem .45rem 0;border-bottom:1px solid var(--soft)}
th{font-weight:600}code{font:.92em ui-monospace,monospace;overflow-wrap:anywhere}
.method{font-weight:700;white-space:nowrap}.scope{background:var(--soft);border-radius:.3rem;padding:.1rem .4rem}
@media (max-width:40rem){thead{display:none}td,tr{display:block;border:0;padding:.1rem 0}
tr{border-bottom:1px solid var(--line);padding:.5rem 0}}
"""


def page(document: dict[str, Any]) -> str:
    """The page for an aggregated OpenAPI document."""
    services = [tag["name"] for tag in document["tags"]]
    links = "".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in services)
    sections = "".join(_section(name, document) for name in services)
    body = sections or "<p>No service has announced itself yet.</p>"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Atoll: the HTTP interface</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>Atoll</h1>
<p>Every operation that the gateway offers now. For programs: <a href="/openapi.json">openapi.json</a> (OpenAPI 3.1);
what runs: <a href="/healthz">healthz</a>.</p>
<p>Send <code>Authorization: Bearer &lt;token&gt;</code>, with a token of <code>POST /auth/token</code>. Errors are
problem details (RFC 9457).</p>
<nav aria-label="Services">{links}</nav>
</header>
<main>{body}</main>
</body>
</html>
"""


def _section(service: str, document: dict[str, Any]) -> str:
    rows = "".join(
        _row(method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if operation["tags"] == [service]
    )
    name = escape(service)
    head = '<tr><th scope="col">Operation</th><th scope="col">Scope</th><th scope="col">What it does</th></tr>'
    return f'<section><h2 id="{name}">{name}</h2><table><thead>{head}</thead><tbody>{rows}</tbody></table></section>'


def _row(method: str, path: str, operation: dict[str, Any]) -> str:
    scopes = [scope for requirement in operation["security"] for scopes in requirement.values() for scope in scopes]
    needed = " ".join(f'<code class="scope">{escape(scope)}</code>' for scope in scopes) or "public"
    text = operation.get("summary") or operation.get("description") or ""
    return (
        f'<tr><td><span class="method">{escape(method.upper())}</span> <code>{escape(path)}</code></td>'
        f"<td>{needed}</td><td>{escape(str(text))}</td></tr>"
    )
