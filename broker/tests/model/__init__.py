"""The broker's core beside a model that a reader can check by eye.

    rules ── what somebody may do now ──▶ world ──▶ the real core, on memory and virtual time
                                            │  └──▶ reference: the same command, by the words of spec/wire-1.md
                                            └── whatever the core sends must be allowed there, and what is due must come

The reference (`sessions`, `outboxes`, `groups`, `reference`) imports nothing of the broker. Where the spec leaves a
choice (which member, which key first, how long a jittered wait is, how far a group has read, when the log is cut), it
does not choose: it looks at what the core did, and asks whether that was allowed, and whether anything was owed and
did not come.

`rules` picks what happens next through a chooser: hypothesis (which shrinks what it finds) or a seeded generator (which
makes the number: `driver`). `coverage` says which (state, command) pairs must be reached, and names those that can not
be; `plants` are one-line bugs that the model must find.
"""
