"""Applied once, in order, never changed afterwards."""

from __future__ import annotations

import pytest

import atoll


async def _open(options: atoll.Options) -> None:
    database = atoll.Database(options.data / "orders.db", options.migrations)
    await database.open()
    await database.close()


async def test_new_files_are_applied_once(options: atoll.Options) -> None:
    await _open(options)
    (options.migrations / "0002-more.sql").write_text("ALTER TABLE note ADD COLUMN at INTEGER;")
    await _open(options)
    await _open(options)


async def test_a_changed_applied_file_refuses_the_start(options: atoll.Options) -> None:
    await _open(options)
    (options.migrations / "0001-notes.sql").write_text("CREATE TABLE note (text TEXT);")
    with pytest.raises(atoll.MigrationError, match=r"0001-notes\.sql was changed"):
        await _open(options)


async def test_a_missing_applied_file_refuses_the_start(options: atoll.Options) -> None:
    await _open(options)
    (options.migrations / "0001-notes.sql").unlink()
    with pytest.raises(atoll.MigrationError, match=r"0001-notes\.sql was applied to this database and is missing"):
        await _open(options)


@pytest.mark.parametrize("name", ["0003-gap.sql", "2-short.sql", "0001-twice.sql"])
async def test_a_gap_or_an_odd_name_refuses_the_start(options: atoll.Options, name: str) -> None:
    (options.migrations / name).write_text("SELECT 1;")
    with pytest.raises(atoll.MigrationError, match="expected"):
        await _open(options)


async def test_a_file_that_fails_leaves_nothing_of_itself(options: atoll.Options) -> None:
    (options.migrations / "0002-bad.sql").write_text("CREATE TABLE half (a);\nCREATE TABLE note (b);")
    with pytest.raises(atoll.MigrationError, match=r"0002-bad\.sql: table note already exists"):
        await _open(options)
    (options.migrations / "0002-bad.sql").write_text("CREATE TABLE half (a);")
    await _open(options)


async def test_a_file_may_not_end_its_own_transaction(options: atoll.Options) -> None:
    (options.migrations / "0002-commit.sql").write_text("CREATE TABLE half (a);\nCOMMIT;\n")
    with pytest.raises(atoll.MigrationError, match="ends its own transaction"):
        await _open(options)


async def test_a_trigger_with_semicolons_is_one_statement(options: atoll.Options) -> None:
    (options.migrations / "0002-trigger.sql").write_text(
        "CREATE TRIGGER t AFTER INSERT ON note BEGIN\n  DELETE FROM note WHERE text = 'x';\n  SELECT 1;\nEND;\n"
    )
    await _open(options)
