"""Jaeger, the real one: where its binary comes from, and the process that becomes it.

Looked for in this order, and the first that works is used: a `jaeger` 2.x on PATH; what an earlier search left in the
user's cache; the official release, by a pinned checksum; a build by Go from pinned modules. With none of them the part
is *absent*: that is a state and no failure, since nothing waits for Jaeger (docs/decisions/0012, 0013).

    pins      what exactly is wanted: observability/jaeger/{pins.toml,go.mod,go.sum}
    cache     the user's cache directory: one binary a set of pins, one bringer at a time
    release   the official archive: bounded, verified, then unpacked
    build     `go build`, with progress
    bring     the order above
    settings  [part.jaeger.settings], and what the configuration files are told
    runner    the slot's process: brings the binary, then becomes it
    existing  somebody's Jaeger that runs already (`up --jaeger URL`)
    foreground  `./atoll jaeger`
"""
