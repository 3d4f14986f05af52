"""Where the rules are applied: to the files as they are, to two commits, and to what the live sessions announce."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from atoll_ops.contracts.files import Break, Contract, Contracts
from atoll_ops.contracts.rules import Finding, additions, reads


class Live(msgspec.Struct, frozen=True):
    """What one live session announces."""

    identity: str
    slot: str
    version: str
    publishes: Mapping[str, Any]
    consumes: list[str]


def consistent(contracts: Contracts) -> list[Break]:
    """The files by themselves: each topic has one publisher, who speaks in his own name, and each consumer fits him."""
    return [*contracts.broken, *_owners(contracts), *_consumers(contracts.consumes, contracts.publishers())]


def grown(old: Contracts, new: Contracts) -> list[Break]:
    """From one commit to another: additions alone. A topic goes once nobody has read it for a release."""
    readers = defaultdict[str, list[str]](list)
    for contract in old.consumes:
        readers[contract.topic].append(contract.part)
    publishers = new.publishers()
    found: list[Break] = []
    for before in old.publishes:
        after = publishers.get(before.topic)
        if after is not None:
            found += _located(after.file, additions(before.schema, after.schema))
        elif readers[before.topic]:
            text = f"expected the topic to stay while somebody reads it: {', '.join(sorted(readers[before.topic]))} did"
            found.append(Break(before.file, "", "removed", text))
    return found


def alive(contracts: Contracts, sessions: Iterable[Live], versions: Mapping[str, str]) -> list[Break]:
    """What runs: it announces what its files say if it is of their version, and is fit to be read if it is of another.

    `versions` has the version of each part's files.
    """
    found: list[Break] = []
    for live in sessions:
        same = versions.get(live.identity) == live.version
        found += _announced(contracts, live) if same else _of_another_version(contracts, live)
        found += _fit(contracts, live)
    return found


def _owners(contracts: Contracts) -> Iterator[Break]:
    first: dict[str, Contract] = {}
    for contract in contracts.publishes:
        if not contract.topic.startswith(f"{contract.part}."):
            yield Break(contract.file, "", "owner", f"expected a topic that begins with {contract.part}.")
        other = first.setdefault(contract.topic, contract)
        if other is not contract:
            yield Break(contract.file, "", "owner", f"expected one publisher a topic: {other.file} is another")
        yield from _located(contract.file, reads(contract.schema, contract.schema), "schema")


def _consumers(consumes: Iterable[Contract], publishers: Mapping[str, Contract]) -> Iterator[Break]:
    for contract in consumes:
        publisher = publishers.get(contract.topic)
        if publisher is None:
            yield Break(contract.file, "", "publisher", "expected some part to publish this topic, none does")
            continue
        yield from _located(contract.file, reads(contract.schema, publisher.schema))


def _located(file: str, findings: Iterable[Finding], only: str | None = None) -> list[Break]:
    return [Break(file, one.field, one.rule, one.text) for one in findings if only in (None, one.rule)]


# ---- what runs ---------------------------------------------------------------------------------------------------


def _announced(contracts: Contracts, live: Live) -> Iterator[Break]:
    """Of the files' version: the same topics, each with the same schema."""
    written = {one.topic: one for one in contracts.publishes if one.part == live.identity}
    for topic in sorted(written.keys() | live.publishes.keys()):
        if topic not in live.publishes:
            yield _of(live, topic, "announced", f"expected as in {written[topic].file}, is not announced")
        elif topic not in written:
            yield _of(live, topic, "announced", "is announced, expected a file of it in contract/publishes")
        elif live.publishes[topic] != written[topic].schema:
            yield _of(live, topic, "announced", f"expected the schema of {written[topic].file}, announces another")
    takes = {one.topic for one in contracts.consumes if one.part == live.identity}
    for topic in sorted(takes ^ set(live.consumes)):
        wanted = "is consumed, expected a file of it in" if topic in live.consumes else "is not consumed, but is in"
        yield _of(live, topic, "announced", f"{wanted} contract/consumes")


def _of_another_version(contracts: Contracts, live: Live) -> Iterator[Break]:
    """Beside the files' version: what it takes has to be published by somebody."""
    publishers = contracts.publishers()
    for topic in sorted(set(live.consumes) - publishers.keys()):
        yield _of(live, topic, "publisher", "is consumed, expected some part to publish it")


def _fit(contracts: Contracts, live: Live) -> Iterator[Break]:
    """Every consumer's copy fits what this session publishes, whatever its version."""
    for contract in contracts.consumes:
        if contract.topic in live.publishes:
            for one in reads(contract.schema, live.publishes[contract.topic]):
                where = f"{_name(live)} for {contract.file}"
                yield Break(where, one.field, one.rule, one.text)


def _of(live: Live, topic: str, rule: str, text: str) -> Break:
    return Break(_name(live), topic, rule, text)


def _name(live: Live) -> str:
    return f"{live.slot} (version {live.version or 'unknown'})"
