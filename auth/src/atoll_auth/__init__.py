"""Auth: who somebody is, and the signed tokens that say so.

Downwards: `__main__` → `app` → `routes`, `commands`, `heartbeat` → `issuer`, `throttle`, `passwords`, `seeds` → `store`
→ `lifecycle`, `domain`, `messages`. `domain` and `lifecycle` are pure.
"""
