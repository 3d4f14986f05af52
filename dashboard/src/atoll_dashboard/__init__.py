"""The operators' dashboard. Authority lives in the ops API: this shows, and asks in the operator's name.

Downwards: `__main__` → `app` → `login`, `health`, `guard` · `main` → `pages` → `shell`, `acts` → `world` →
`poller`, `sessions`, `jaeger` → `gateway`, `config`; beside them what only computes: `snapshot`, `fleetview`,
`progress`, `topology`, `waterfall`, `markup`, `states`, `wording`.
"""
