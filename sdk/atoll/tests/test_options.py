"""Options say which variable is wrong and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

import atoll


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "keys").mkdir()
    return {
        "ATOLL_SLOT": "orders/2",
        "ATOLL_HOST": "127.0.0.1",
        "ATOLL_PORT": "8102",
        "ATOLL_DATA": str(tmp_path / "data"),
        "ATOLL_KEYS": str(tmp_path / "keys"),
        "ATOLL_BUS": "tcp://127.0.0.1:8086",
    }


def test_a_complete_environment_is_read(environ: dict[str, str]) -> None:
    options = atoll.Options.from_environment(environ)
    assert (options.name, options.instance, options.port, options.log_level) == ("orders", "2", 8102, "info")
    assert options.data.stat().st_mode & 0o777 == 0o700
    assert (options.contract, options.migrations) == (Path("contract"), Path("migrations"))


@pytest.mark.parametrize("name", ["ATOLL_SLOT", "ATOLL_HOST", "ATOLL_PORT", "ATOLL_DATA", "ATOLL_KEYS", "ATOLL_BUS"])
def test_a_missing_variable_is_named(environ: dict[str, str], name: str) -> None:
    del environ[name]
    with pytest.raises(atoll.ConfigurationError, match=f"{name} is not set: expected "):
        atoll.Options.from_environment(environ)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ATOLL_SLOT", "Orders/1"),
        ("ATOLL_SLOT", "orders"),
        ("ATOLL_PORT", "65536"),
        ("ATOLL_PORT", "-1"),
        ("ATOLL_PORT", "１２"),
        ("ATOLL_BUS", "127.0.0.1:8086"),
        ("ATOLL_KEYS", "/nowhere"),
        ("ATOLL_DATA", "/dev/null/x"),
        ("ATOLL_LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(environ: dict[str, str], name: str, value: str) -> None:
    with pytest.raises(atoll.ConfigurationError, match=f"{name} is .*: expected ") as raised:
        atoll.Options.from_environment({**environ, name: value})
    assert raised.value.exit_code == 64
