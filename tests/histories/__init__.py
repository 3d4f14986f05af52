"""Histories: what every role of a running bus did and saw, and whether that keeps the invariants I1 to I12.

    world     processes, namespaces, clock: the broker and its clients, nothing of them outlives the test
    roles     publishers, consumers, a stranger, an observer: each writes its history, one JSON line an operation
    island    a service on the SDK, with its outbox and its inbox
    nemesis   seeded faults upon all of them, each with evidence that it hit
    stage     the run: start, faults, heal, drain, final state
    checker   the invariants, pure functions over the histories

Nobody's wall clock orders anything. What orders are the lines of one process, the broker's seq and fence, a producer's
pseq, and what one process has read from another.
"""
