"""`./atoll contracts check` on repositories that a test made, with a break planted in each; and `./atoll asyncapi`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atoll_ops.contracts import asyncapi, check
from atoll_ops.contracts.files import in_folder
from atoll_ops.contracts.verb import versions_of

PLACED, PAID = "orders.order.placed.v1", "payments.payment.captured.v1"
LINES = {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"total": {"type": "string"}, "note": {"type": "string"}, "lines": LINES},
    "required": ["total", "lines"],
}
READ: dict[str, Any] = {"type": "object", "properties": {"total": {"type": "string"}}, "required": ["total"]}
PUBLISHES = f"services/orders/contract/publishes/{PLACED}.schema.json"
PAYS = f"services/payments/contract/publishes/{PAID}.schema.json"
CONSUMES = f"services/payments/contract/consumes/{PLACED}.schema.json"


class Repository:
    """A repository with two parts that have contracts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write(PUBLISHES, SCHEMA)
        self.write(CONSUMES, READ)
        self.write(PAYS, {"type": "object"})
        (root / "services" / "orders" / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')

    def write(self, place: str, schema: Any) -> None:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(schema if isinstance(schema, str) else json.dumps(schema))

    def commit(self) -> str:
        """Commit everything; its name."""
        who = ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false"]
        for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "x"]):
            subprocess.run(["git", "-C", str(self.root), *words], check=True, capture_output=True)
        named = ["git", "-C", str(self.root), "rev-parse", "HEAD"]
        return subprocess.run(named, check=True, capture_output=True, text=True).stdout.strip()

    def atoll(self, *words: str) -> tuple[int, str]:
        """`./atoll …` here: its exit code, and all that it said."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "atoll_ops", *words], text=True, check=False, timeout=60,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"ATOLL_ROOT": str(self.root)},
        )  # fmt: skip
        return done.returncode, done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def without(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """The schema with one field less."""
    fields = {key: value for key, value in schema["properties"].items() if key != name}
    return schema | {"properties": fields, "required": [one for one in schema["required"] if one != name]}


def adding(schema: dict[str, Any], name: str, field: Any, *, required: bool = False) -> dict[str, Any]:
    """The schema with one field more, or another one."""
    always = [*schema["required"], name] if required else schema["required"]
    return schema | {"properties": schema["properties"] | {name: field}, "required": always}


def test_contracts_that_fit_are_counted(repository: Repository) -> None:
    code, said = repository.atoll("contracts", "check")
    assert (code, said) == (0, "contracts of 2 parts (the files): 2 published, 1 consumed, 0 broken\n")


#: What is planted in the files → the rule and the field that the line names.
FILES: dict[str, tuple[str, Any, str, str]] = {
    "a field that nobody sends": (CONSUMES, adding(READ, "amount", {"type": "string"}), "data.amount", "field"),
    "an optional field, needed": (
        CONSUMES, adding(READ, "note", {"type": "string"}, required=True), "data.note", "required",
    ),
    "another type": (CONSUMES, adding(READ, "total", {"type": "number"}), "data.total", "type"),
    "no publisher": (CONSUMES.replace("order.placed", "order.lost"), READ, "order.lost", "publisher"),
    "another's topic": (f"services/payments/contract/publishes/{PLACED}.schema.json", SCHEMA, "payments.", "owner"),
    "a second publisher": (f"zone/orders/contract/publishes/{PLACED}.schema.json", SCHEMA, PUBLISHES, "owner"),
    "no JSON": (CONSUMES, "{", "expected JSON", "file"),
    "no object": (CONSUMES, [], "JSON Schema", "file"),
    "no schema file": (CONSUMES.replace(".schema.json", ".yaml"), "a: b", ".schema.json", "file"),
    "a reference that leads nowhere": (PUBLISHES, adding(SCHEMA, "x", {"$ref": "#/$defs/X"}), "#/$defs/X", "schema"),
}  # fmt: skip


@pytest.mark.parametrize(("place", "schema", "named", "rule"), FILES.values(), ids=FILES)
def test_a_break_in_the_files_is_one_line_with_file_field_and_rule(
    repository: Repository, place: str, schema: Any, named: str, rule: str
) -> None:
    repository.write(place, schema)
    code, said = repository.atoll("contracts", "check")
    assert code == 1, said
    lines = [line for line in said.splitlines() if line.startswith(f"{place}: ") and line.endswith(f"[{rule}]")]
    assert any(named in line and "expected" in line for line in lines), said


def test_the_same_as_json_for_programs(repository: Repository) -> None:
    repository.write(CONSUMES, adding(READ, "amount", {"type": "string"}))
    code, said = repository.atoll("contracts", "check", "--json")
    report = json.loads(said)
    assert (code, report["ok"]) == (1, False)
    (found,) = report["breaks"]
    assert (found["file"], found["field"], found["rule"]) == (CONSUMES, "data.amount", "field")
    assert report["counts"] == {"parts": 2, "publishes": 2, "consumes": 1}


def planted(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Repository], None]:
    return lambda repository: repository.write(PUBLISHES, change(SCHEMA))


#: What changes from one commit to the next → the rule that it breaks (None: it may).
GROWTH: dict[str, tuple[Callable[[Repository], None], str | None]] = {
    "nothing": (lambda _: None, None),
    "an optional field more": (planted(lambda one: adding(one, "gift", {"type": "boolean"})), None),
    "a field that is always there more": (
        planted(lambda one: adding(one, "gift", {"type": "boolean"}, required=True)), "required",
    ),
    "a field less, that nobody here reads": (planted(lambda one: without(one, "note")), "removed"),
    "required to optional": (planted(lambda one: one | {"required": ["total"]}), "required"),
    "optional to required": (planted(lambda one: one | {"required": ["total", "lines", "note"]}), "required"),
    "a wider type": (planted(lambda one: adding(one, "note", {"type": ["string", "null"]})), "type"),
    "a narrower bound": (planted(lambda one: adding(one, "note", {"type": "string", "maxLength": 3})), "bound"),
    "a topic that somebody read": (lambda repository: (repository.root / PUBLISHES).unlink(), "removed"),
    "a topic that nobody read": (
        lambda repository: (repository.root / PAYS).unlink(), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "rule"), GROWTH.values(), ids=GROWTH)
def test_from_one_commit_to_another_there_are_additions_alone(
    repository: Repository, change: Callable[[Repository], None], rule: str | None
) -> None:
    before = repository.commit()
    change(repository)
    in_files = repository.atoll("contracts", "check", "--range", f"{before}..")
    repository.write("note", "x")  # `git commit` refuses one without a change
    committed = repository.atoll("contracts", "check", "--range", f"{before}..{repository.commit()}")
    for code, said in (in_files, committed):
        assert code == (0 if rule is None else 1), said
        assert rule is None or f"[{rule}]" in said
        assert f"from {before}" in said


@pytest.mark.parametrize(
    ("span", "why"),
    [
        ("HEAD", "expected two commits"),
        ("..HEAD", "expected A..B"),
        ("HEAD...HEAD", "expected A..B"),
        ("nowhere..HEAD", "git knows no commit nowhere"),
        ("HEAD..--all", "git knows no commit --all"),
    ],
)
def test_a_range_that_is_none_is_one_line_naming_it(repository: Repository, span: str, why: str) -> None:
    repository.commit()
    code, said = repository.atoll("contracts", "check", "--range", span)
    assert code == 1
    assert said.startswith("atoll: --range")
    assert why in said
    assert said.count("\n") == 1


def test_a_folder_without_contracts_says_so(tmp_path: Path) -> None:
    bare = Repository(tmp_path / "a")
    (tmp_path / "b").mkdir()
    bare.root = tmp_path / "b"
    code, said = bare.atoll("contracts", "check")
    assert code == 1
    assert "is it a repository of Atoll's?" in said


# ---- what runs ---------------------------------------------------------------------------------------------------


def live(version: str, schema: Any = SCHEMA, topic: str = PLACED, consumes: tuple[str, ...] = ()) -> check.Live:
    return check.Live("orders", "orders/1", version, {topic: schema}, list(consumes))


def test_a_session_of_the_files_version_announces_what_the_files_say(repository: Repository) -> None:
    contracts = in_folder(repository.root)
    versions = versions_of(repository.root, contracts)
    assert versions == {"orders": "1.2.0"}
    assert check.alive(contracts, [live("1.2.0")], versions) == []
    (found,) = check.alive(contracts, [live("1.2.0", adding(SCHEMA, "gift", {}))], versions)
    assert (found.file, found.field, found.rule) == ("orders/1 (version 1.2.0)", PLACED, "announced")
    more = check.alive(contracts, [live("1.2.0", topic="orders.order.lost.v1", consumes=(PAID,))], versions)
    assert [(one.field, one.rule) for one in more] == [
        ("orders.order.lost.v1", "announced"), (PLACED, "announced"), (PAID, "announced"),
    ]  # fmt: skip


def test_beside_it_another_version_may_run_that_consumers_can_read(repository: Repository) -> None:
    contracts = in_folder(repository.root)
    versions = versions_of(repository.root, contracts)
    newer = live("1.3.0", adding(SCHEMA, "gift", {"type": "boolean"}))
    assert check.alive(contracts, [live("1.2.0"), newer], versions) == []
    (found,) = check.alive(contracts, [live("1.2.0"), live("2.0.0", without(SCHEMA, "total"))], versions)
    assert (found.field, found.rule) == ("data.total", "field")
    assert found.file == f"orders/1 (version 2.0.0) for {CONSUMES}"
    (found,) = check.alive(contracts, [live("1.3.0", consumes=("mails.mail.sent.v1",))], versions)
    assert (found.field, found.rule) == ("mails.mail.sent.v1", "publisher")


# ---- the document ------------------------------------------------------------------------------------------------

PAGE = f"""
[group_defaults]
attempts_max = 8
[group.payments]
part = "payments"
topics = ["{PLACED}"]
on_dead = "skip"
"""


def test_the_document_has_a_channel_a_topic_and_an_operation_for_each_who_speaks_or_listens(
    repository: Repository,
) -> None:
    (repository.root / "mesh.toml").write_text(PAGE)
    output = repository.root / "asyncapi.json"
    assert repository.atoll("asyncapi", "--output", str(output)) == (0, "")
    document = json.loads(output.read_text())
    assert set(document["channels"]) == {PLACED, PAID}
    assert {name: one["action"] for name, one in document["operations"].items()} == {
        f"orders.send.{PLACED}": "send", f"payments.send.{PAID}": "send", f"payments.receive.{PLACED}": "receive",
    }  # fmt: skip
    receive = document["operations"][f"payments.receive.{PLACED}"]
    assert receive["x-atoll-group"] == {"name": "payments", "attempts_max": 8, "on_dead": "skip"}
    assert receive["x-atoll-reads"] == READ
    assert repository.atoll("asyncapi")[1] == output.read_text()


def test_a_reference_leads_to_where_the_schema_is_in_the_document(repository: Repository) -> None:
    schema = adding(SCHEMA, "x", {"$ref": "#/$defs/X"}) | {"$defs": {"X": {"$ref": "#/properties/total"}}}
    repository.write(PUBLISHES, schema)
    document = asyncapi.document(in_folder(repository.root), {})
    embedded = document["components"]["schemas"][PLACED]
    assert embedded["properties"]["x"] == {"$ref": f"#/components/schemas/{PLACED}/definitions/X"}
    assert embedded["definitions"]["X"] == {"$ref": f"#/components/schemas/{PLACED}/properties/total"}


@pytest.mark.parametrize(("page", "why"), [("[", "not TOML"), (None, "No such file")])
def test_a_page_that_is_none_is_named(repository: Repository, page: str | None, why: str) -> None:
    if page is not None:
        (repository.root / "mesh.toml").write_text(page)
    code, said = repository.atoll("asyncapi")
    assert code == 2
    assert why in said
    assert "mesh.toml" in said
