"""The process: what it is told, how it starts and ends, and which of Streamlit's options take effect."""

from __future__ import annotations

import re
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from serving import Dashboard, environment, free_port, running, start, until

from atoll_dashboard.config import read


def ended(told: dict[str, str], home: Path) -> tuple[int, str]:
    """The exit code of a process that must not start, and what it said."""
    process = start(told, home / "log")
    try:
        return process.wait(30), (home / "log").read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ATOLL_PORT", ""),
        ("ATOLL_PORT", "0"),
        ("ATOLL_PORT", "65536"),
        ("ATOLL_PORT", "x"),
        ("ATOLL_GATEWAY", ""),
        ("ATOLL_GATEWAY", "127.0.0.1:1"),
        ("ATOLL_GATEWAY", "http://h/path"),
        ("ATOLL_JAEGER", "ftp://h"),
        ("ATOLL_KEYS", ""),
        ("ATOLL_KEYS", "/nowhere"),
        ("ATOLL_DATA", ""),
        ("ATOLL_DATA", "/proc/none"),
        ("ATOLL_LOG_LEVEL", "loud"),
        ("ATOLL_JAEGER", "http://h/base?x=1"),
        ("ATOLL_JAEGER", "http://amy:secret@h/base"),
        ("ATOLL_JAEGER", "http://h/ba se"),
        ("ATOLL_JAEGER_PAGES", "x"),
        ("ATOLL_JAEGER_PAGES", "https://h/base#traces"),
        ("DASHBOARD_SESSION_SECONDS", "0"),
        ("DASHBOARD_SESSION_SECONDS", "nan"),
        ("DASHBOARD_IDLE_SECONDS", "inf"),
        ("DASHBOARD_IDLE_SECONDS", "soon"),
        ("DASHBOARD_ORIGINS", "ops.example.com"),
        ("DASHBOARD_ORIGINS", "https://a.example,https://u@b.example"),
        ("ATOLL_HOST", "192.0.2.1"),
        ("ATOLL_HOST", "no.such.name.invalid"),
    ],
)
def test_what_is_not_configured_is_named_by_its_variable(tmp_path: Path, name: str, value: str) -> None:
    told = environment(free_port(), tmp_path, "http://127.0.0.1:9", **{name: value})
    code, said = ended(told, tmp_path)
    assert code == 64, said
    assert name in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("https://jaeger.example:443/base/", "https://jaeger.example/base"),
        ("http://127.0.0.1:16686/a/b", "http://127.0.0.1:16686/a/b"),
        ("http://127.0.0.1:16686/", "http://127.0.0.1:16686"),
    ],
)
def test_a_jaeger_may_have_a_base_path(tmp_path: Path, told: str, kept: str) -> None:
    part = environment(1, tmp_path, "http://127.0.0.1:9", ATOLL_JAEGER=told)
    options = read(part)
    assert (options.jaeger, options.jaeger_link) == (kept, kept)
    elsewhere = read(part | {"ATOLL_JAEGER_PAGES": "https://ops.example/jaeger/"})
    assert (elsewhere.jaeger, elsewhere.jaeger_link) == (kept, "https://ops.example/jaeger")


@pytest.mark.parametrize("text", [None, "{", "[]", '{"client_id": "x"}', '{"client_id": "x", "client_secret": 5}'])
def test_a_client_that_is_none_is_named(tmp_path: Path, text: str | None) -> None:
    told = environment(free_port(), tmp_path, "http://127.0.0.1:9")
    file = tmp_path / "keys" / "client.json"
    file.unlink() if text is None else file.write_text(text)
    code, said = ended(told, tmp_path)
    assert (code, "ATOLL_KEYS: client.json" in said) == (64, True), said


def test_a_taken_port_is_said_and_no_other_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = ended(environment(port, tmp_path, "http://127.0.0.1:9"), tmp_path)
    assert code == 69
    assert f"port {port} on 127.0.0.1 is taken" in said


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    told = environment(free_port(), tmp_path, "http://127.0.0.1:9")
    (tmp_path / "data" / "cookie.key").mkdir(parents=True)
    code, said = ended(told, tmp_path)
    assert (code, "ATOLL_DATA" in said) == (74, True), said


def test_the_key_of_cookies_is_its_owners_alone(dashboard: Dashboard) -> None:
    (key,) = dashboard.log.parent.glob("data/cookie.key")
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_bytes()) == 32
    for path in dashboard.log.parent.glob("data/**/*"):
        assert path.is_dir() or path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(("gateway", "seconds_max"), [("well", 9), ("hang", 9)])
def test_it_ends_soon_with_pages_open(tmp_path: Path, gateway: str, seconds_max: float) -> None:
    with running(tmp_path) as dashboard, ExitStack() as pages:
        cookie = dashboard.login()
        for _ in range(5):
            pages.enter_context(dashboard.page(cookie)).open()
            pages.enter_context(dashboard.stream(cookie))
        dashboard.gateway.state.auth = dashboard.gateway.state.ops = gateway
        until("the poller asks", lambda: dashboard.gateway.state.asked[-1].path == "/ops/snapshot")
        began = time.monotonic()
        dashboard.process.send_signal(signal.SIGTERM)
        code = dashboard.process.wait(15)
        took = time.monotonic() - began
    print(f"» SIGTERM with 10 open pages, gateway: {gateway}: {took:.1f} s (promised: 3 s)")
    assert code == 0, dashboard.log.read_text()
    assert took < seconds_max


def test_after_a_restart_people_sign_in_again(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        cookie = first.login("viewer")
        assert first.opens(cookie) == 101
    with running(tmp_path, first.port) as second:  # the same key, too
        assert second.opens(cookie) == 403
        assert second.opens(second.login("viewer")) == 101


def test_a_link_to_a_page_works_though_nobody_opened_another_before(tmp_path: Path) -> None:
    with running(tmp_path) as dashboard, dashboard.page(dashboard.login()) as page:
        assert "payments" in page.open("service", "name=payments")


def test_it_listens_where_it_was_told_and_nowhere_else(dashboard: Dashboard) -> None:
    rows = [line.split() for line in Path(f"/proc/{dashboard.process.pid}/net/tcp").read_text().splitlines()[1:]]
    held = {link.resolve().name for link in Path(f"/proc/{dashboard.process.pid}/fd").iterdir()}
    listening = [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in held]
    assert listening == [f"0100007F:{dashboard.port:04X}"]


def test_every_option_of_streamlit_exists_and_nothing_tells_another(dashboard: Dashboard) -> None:
    from streamlit import config

    from atoll_dashboard import app

    home = dashboard.log.parent
    told = app.settings(read(environment(dashboard.port, home, dashboard.gateway.url)))
    known = config._config_options_template
    assert [name for name in told if name not in known] == []
    assert told["runner.postScriptGC"] is False
    assert told["client.showErrorDetails"] == "none"


def test_logs_are_json_and_name_no_secret(dashboard: Dashboard) -> None:
    import json

    cookie = dashboard.login()
    lines = [line for line in dashboard.log.read_text().splitlines() if line.startswith("{")]
    for line in lines:
        json.loads(line)
    said = dashboard.log.read_text()
    assert cookie not in said
    assert "pw-operator" not in said
    assert not [token for token in dashboard.gateway.state.tokens if token in said]


def test_pages_bring_neither_pandas_nor_arrow(tmp_path: Path) -> None:
    """What a page costs in memory: everything of ours is HTML elements."""
    with running(tmp_path) as dashboard:
        cookie = dashboard.login()
        before = dashboard.memory_mib()
        with ExitStack() as pages:
            for name in ("", "traces", "operations", "service"):
                page = pages.enter_context(dashboard.page(cookie))
                page.open(name, "name=payments")
            after = dashboard.memory_mib()
        maps = Path(f"/proc/{dashboard.process.pid}/maps").read_text()
    brought = sorted(set(re.findall(r"/(pandas|pyarrow|altair|numpy)/", maps)))
    print(
        f"» dashboard's memory: {before:.0f} MiB with nobody there, {after:.0f} MiB with four pages; brought: {brought}"
    )
    assert "pyarrow" not in brought
    assert "pandas" not in brought
    assert after < 250
