"""What `up` shows once everything is up: where to go, and what became of the traces."""

from __future__ import annotations

import os
from typing import Any

from atoll_ops import keys
from atoll_ops.jaeger import existing
from atoll_ops.launch import Plan


def of(plan: Plan, snapshot: dict[str, Any]) -> dict[str, str]:
    """A line each, by name. `snapshot`: how the parts are now."""
    parts = {part["name"]: part for part in snapshot["parts"]}
    credentials = plan.state.read_credentials()
    lines = {"gateway": f"{credentials['gateway']}  (API: {credentials['gateway']}/docs)"}
    if keys.DASHBOARD in parts:
        lines["dashboard"] = credentials["dashboard"]
    lines["jaeger"] = _jaeger(plan, parts.get(keys.JAEGER))
    return lines | {"credentials": str(plan.state.credentials)}


def _jaeger(plan: Plan, part: dict[str, Any] | None) -> str:
    if plan.jaeger:
        why = existing.silence(plan.jaeger)
        state = f"does not answer now: {why}" if why else "ready"
        return f"{plan.jaeger}  {state}; spans go to {plan.site.collector}"
    if part is None:
        return f"not started; spans go to {plan.site.collector}, if a collector listens there"
    return _ours(plan, part) + _elsewhere(plan)


def _ours(plan: Plan, part: dict[str, Any]) -> str:
    """`ready`, `building 38 %`, `absent: why`, or whatever else its state is."""
    match part["state"], part["why"]:
        case "running", why:
            return f"{plan.site.jaeger}  ready" + (f" ({why})" if why else "")
        case "starting", why:
            return f"{why or 'starting'}  (will be at {plan.site.jaeger}; nothing waits for it)"
        case state, why:
            return f"{state}: {why}"


def _elsewhere(plan: Plan) -> str:
    """The one setting that makes our own Jaeger look empty is worth a word."""
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return f"; but spans go to OTEL_EXPORTER_OTLP_ENDPOINT={plan.site.collector}"
    return ""
