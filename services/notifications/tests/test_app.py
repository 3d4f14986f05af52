"""The service as it runs, the broker away: mails that are committed are delivered, whatever a server does."""

import errno
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from mailservers import Mailbox, hang, misbehaving, serving
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from support import CANCELLED, CONFIRMED, Bus, cancelled, confirmed, options, settings, until

import atoll
from atoll_notifications import courier, store, tracing
from atoll_notifications.app import COURIER, DATABASE, make_app
from atoll_notifications.handlers import subscriptions
from atoll_notifications.maildir import Maildir
from atoll_notifications.settings import Smtp

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Post:
    """The running service, and a bus that brings it events."""

    def __init__(self, client: TestClient[Any, Any], bus: Bus, folder: Path) -> None:
        self.client, self.bus, self.folder = client, bus, folder

    async def ready(self) -> dict[str, Any]:
        async with self.client.get("/ready") as response:
            assert response.status == 200
            body: dict[str, Any] = await response.json()
            return body

    async def metric(self, sample: str) -> float:
        async with self.client.get("/metrics") as response:
            text = await response.text()
        [value] = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(sample + " ")]
        return float(value)

    def filed(self) -> set[str]:
        return {path.name for path in (self.folder / "maildir" / "new").iterdir()}

    async def smtp(self) -> dict[str, tuple[str, int, str | None]]:
        """By order: state, tries, what the server said."""
        rows = await self.bus.database.read(
            lambda reader: reader.all("SELECT order_id, smtp, smtp_tries, smtp_said FROM mails")
        )
        return {row["order_id"]: (row["smtp"], row["smtp_tries"], row["smtp_said"]) for row in rows}

    async def until_smtp(self, order_id: str, state: str) -> None:
        async def holds() -> bool:
            return (await self.smtp())[order_id][0] == state

        await until(f"order {order_id} to be {state}", holds)

    async def undelivered(self) -> int:
        found: int = await self.bus.count("SELECT count(*) FROM mails WHERE message IS NOT NULL")
        return found


@asynccontextmanager
async def posting(folder: Path, smtp: Smtp | None = None) -> AsyncIterator[Post]:
    """The service over the data in `folder`; may be started there again."""
    if (folder / "keys").exists():
        shutil.rmtree(folder / "keys")
    wanted = settings(folder, smtp)
    app = make_app(options(folder), wanted)
    async with TestClient(TestServer(app)) as client:
        bus = Bus(app[DATABASE], subscriptions(wanted, app[COURIER].ring))
        yield Post(client, bus, folder)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "SERVER_PAUSE_SECONDS", (0.02, 0.1))
    monkeypatch.setattr(courier, "MAIL_PAUSE_SECONDS", (0.02, 0.1))
    monkeypatch.setattr(courier, "MAILDIR_PAUSE_SECONDS", (0.02, 0.1))
    monkeypatch.setattr(courier, "COUNT_SECONDS", 0.02)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    return exporter


def to(port: int, **more: Any) -> Smtp:
    return Smtp(host="127.0.0.1", port=port, **({"timeout_seconds": 2} | more))


async def test_it_has_no_face_but_its_health_and_is_ready_without_the_broker(tmp_path: Path) -> None:
    app = make_app(options(tmp_path), settings(tmp_path))
    async with TestClient(TestServer(app)) as client, client.get("/ready") as response:
        assert (response.status, (await response.json())["degraded"]) == (200, ["bus"])
    paths = {route.resource.canonical for route in app.router.routes() if route.resource}
    assert paths == {"/live", "/ready", "/metrics"}


async def test_mails_lie_in_the_maildir_soon_and_their_bytes_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "IDLE_SECONDS", 60.0)
    async with posting(tmp_path) as post:
        for number in range(70):  # more than two batches
            await post.bus.deliver(CONFIRMED, f"o-{number}", confirmed(), id=f"e-{number}")
        await post.bus.deliver(CANCELLED, "o-c", cancelled(), id="e-c")
        await until("71 mails", lambda: len(post.filed()) == 71, seconds=30)  # by the bell: the next look is in 60 s
        assert post.filed() == {f"e-{number}" for number in range(70)} | {"e-c"}

        async def nothing_left() -> bool:
            return await post.undelivered() == 0

        await until("nothing to be left", nothing_left)


async def test_what_is_committed_is_delivered_by_the_next_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as silent:
        silent.setattr(courier.Courier, "_file_some", _idle)
        async with posting(tmp_path) as post:
            await post.bus.deliver(CONFIRMED, "o-1", confirmed(), id="e-1")
        assert not post.filed()
    async with posting(tmp_path) as post:
        await until("the mail", lambda: post.filed() == {"e-1"})


async def _idle(_self: object) -> float:
    return 0.01


async def test_a_crash_between_rename_and_commit_makes_no_second_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as crashing:
        crashing.setattr(courier, "_filed", _crash)
        async with posting(tmp_path) as post:
            await post.bus.deliver(CONFIRMED, "o-1", confirmed(), id="e-1")
            await until("the mail", lambda: post.filed() == {"e-1"})
            await until("trouble to be said", _degraded(post, "maildir: the process dies here"))
    (tmp_path / "maildir/new/e-1").rename(tmp_path / "maildir/cur/e-1:2,S")  # and the customer reads it meanwhile
    async with posting(tmp_path) as post:

        async def nothing_left() -> bool:
            return await post.undelivered() == 0

        await until("the mail to be noted", nothing_left)
        assert not post.filed()


def _crash(*_: object) -> None:
    raise RuntimeError("the process dies here")


def _degraded(post: Post, why: str) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return bool(why in (await post.ready())["degraded"])

    return holds


async def test_a_full_disk_is_said_and_mended(tmp_path: Path) -> None:
    new = tmp_path / "maildir" / "new"
    async with posting(tmp_path) as post:
        new.rename(tmp_path / "away")  # stands for any OSError; root ignores permissions
        await post.bus.deliver(CONFIRMED, "o-1", confirmed(), id="e-1")

        async def said() -> bool:
            return any(why.startswith("maildir: ") for why in (await post.ready())["degraded"])

        await until("it to be said", said)
        assert await post.metric('atoll_mail_deliveries_total{channel="maildir",outcome="failed"}') >= 1
        (tmp_path / "away").rename(new)
        await until("the mail", lambda: post.filed() == {"e-1"})

        async def unsaid() -> bool:
            return bool((await post.ready())["degraded"] == ["bus"])

        await until("it to be unsaid", unsaid)


async def test_by_smtp_too_each_once_with_the_events_message_id(tmp_path: Path) -> None:
    mailbox = Mailbox()
    async with serving(mailbox) as port, posting(tmp_path, to(port)) as post:
        for number in range(40):
            await post.bus.deliver(CONFIRMED, f"o-{number}", confirmed(), id=f"e-{number}")
        await until("40 mails", lambda: len(mailbox.taken) >= 40)
        await post.until_smtp("o-39", "sent")
        assert sorted(mailbox.ids) == sorted(
            f"Message-ID: <e-{number}@notifications.atoll.invalid>" for number in range(40)
        )
        await until("as many files", lambda: len(post.filed()) == 40)


@pytest.mark.parametrize("answers", [[], ["550 no such customer"]], ids=["sent", "refused"])
async def test_a_full_disk_makes_no_second_try_of_a_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[str]
) -> None:
    refused = 0

    async def full(*_: object) -> None:
        nonlocal refused
        refused += 1
        raise atoll.StorageError("notifications.db: database or disk is full")

    def write(database: atoll.Database, work: Callable[[atoll.Transaction], Any]) -> Any:
        return full() if disk_full and "_noted" in work.__qualname__ else whole(database, work)

    disk_full, whole = True, atoll.Database.write
    monkeypatch.setattr(atoll.Database, "write", write)
    mailbox = Mailbox(*answers)
    async with serving(mailbox) as port, posting(tmp_path, to(port)) as post:
        await post.bus.deliver(CONFIRMED, "o-1", confirmed(), id="e-1")
        await until("it to be found full again and again", lambda: refused >= 5)
        assert mailbox.tries == 1
        assert any(why.startswith("smtp: ") for why in (await post.ready())["degraded"])
        disk_full = False
        await post.until_smtp("o-1", "refused" if answers else "sent")
        await post.bus.deliver(CONFIRMED, "o-2", confirmed(), id="e-2")
        await post.until_smtp("o-2", "sent")
    assert mailbox.tries == 2


async def test_what_lies_in_the_maildir_is_noted_though_the_next_finds_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deliver(maildir: Maildir, name: str, message: bytes) -> None:
        if name == "e-2" and not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(maildir, name, message)

    room, whole = False, Maildir.deliver
    monkeypatch.setattr(Maildir, "deliver", deliver)
    async with posting(tmp_path) as post:

        def both(tx: atoll.Transaction) -> None:
            for number in (1, 2):
                mail = store.Mail(f"o-{number}", f"e-{number}", CONFIRMED, "a@b.invalid", None, b"-", float(number))
                store.add(tx, mail, by_smtp=False)

        await post.bus.database.write(both)
        post.client.app[COURIER].ring()

        async def one_left() -> bool:
            return await post.undelivered() == 1

        await until("the first to be noted", one_left)
        (tmp_path / "maildir" / "new" / "e-1").unlink()  # read, and deleted
        room = True
        await until("the second", lambda: "e-2" in post.filed())
        assert post.filed() == {"e-2"}


async def test_a_tempfail_is_tried_again_later_and_no_other_mail_waits_for_it(tmp_path: Path) -> None:
    mailbox = Mailbox("451 try later", "450 and later")
    async with serving(mailbox) as port, posting(tmp_path, to(port)) as post:
        await post.bus.deliver(CONFIRMED, "o-1", confirmed(), id="e-1")
        await until("the first try", lambda: mailbox.tries == 1)
        await post.bus.deliver(CONFIRMED, "o-2", confirmed(), id="e-2")
        for order_id in ("o-1", "o-2"):
            await post.until_smtp(order_id, "sent")
        assert sum(tries for _, tries, _ in (await post.smtp()).values()) == 4
        assert len(mailbox.taken) == 2
        assert await post.metric('atoll_mail_deliveries_total{channel="smtp",outcome="deferred"}') == 2


async def test_a_permanent_refusal_is_kept_visible_and_not_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mailbox = Mailbox("550 no such customer")
    async with serving(mailbox) as port, posting(tmp_path, to(port)) as post:
        await post.bus.deliver(CONFIRMED, "o-1", confirmed(), id="e-1")
        await post.until_smtp("o-1", "refused")
        await post.bus.deliver(CONFIRMED, "o-2", confirmed(), id="e-2")
        await post.until_smtp("o-2", "sent")
        assert (await post.smtp())["o-1"] == ("refused", 1, "550 no such customer")
        assert mailbox.tries == 2
        await until("both files", lambda: post.filed() == {"e-1", "e-2"})

        async def shown() -> bool:
            return await post.metric('atoll_mails_undeliverable{why="refused"}') == 1

        await until("the metric", shown)
    assert "mail refused for good" in capsys.readouterr().out


async def test_a_server_that_dies_and_comes_back(tmp_path: Path) -> None:
    mailbox = Mailbox()
    async with serving(mailbox) as port:
        pass
    async with posting(tmp_path, to(port)) as post:
        await post.bus.deliver(CONFIRMED, "o-1", confirmed(), id="e-1")
        await until("the mail in the maildir", lambda: post.filed() == {"e-1"})

        async def said() -> bool:
            return any(why.startswith("smtp: ") for why in (await post.ready())["degraded"])

        await until("trouble to be said", said)
        async with serving(mailbox, port):
            await post.until_smtp("o-1", "sent")

        async def unsaid() -> bool:
            return bool((await post.ready())["degraded"] == ["bus"])

        await until("it to be unsaid", unsaid)
    assert len(mailbox.taken) == 1


async def test_a_hanging_server_keeps_neither_the_maildir_nor_the_stop(tmp_path: Path) -> None:
    async with misbehaving(hang) as port, posting(tmp_path, to(port, timeout_seconds=60)) as post:
        for number in range(5):
            await post.bus.deliver(CONFIRMED, f"o-{number}", confirmed(), id=f"e-{number}")
        await until("5 mails in the maildir", lambda: len(post.filed()) == 5, seconds=3)
        # `posting` has left: lifetime ends within STOP_SECONDS although the server's 60 s are not over
    async with posting(tmp_path) as post:
        assert {state for state, _, _ in (await post.smtp()).values()} == {"due"}


async def test_what_could_not_be_sent_for_too_long_is_given_up_after_a_try(tmp_path: Path) -> None:
    async with serving(Mailbox()) as port:
        pass
    async with posting(tmp_path, to(port, give_up_seconds=1)) as post:
        await post.bus.deliver(CONFIRMED, "o-1", confirmed(), id="e-1")
        await post.until_smtp("o-1", "given_up")
        _, _, said = (await post.smtp())["o-1"]
        assert said
        assert post.filed() == {"e-1"}


async def test_deliveries_are_spans_of_the_orders_trace(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    mailbox = Mailbox("451 later")
    async with serving(mailbox) as port, posting(tmp_path, to(port)) as post:
        await post.bus.deliver(CONFIRMED, "o-1", confirmed(), traceparent=f"00-{TRACE}-{PARENT}-01")
        await post.until_smtp("o-1", "sent")
        await until("three spans", lambda: len(spans.get_finished_spans()) == 3)
    found = spans.get_finished_spans()
    assert {span.name for span in found} == {"deliver mail"}
    assert {f"{span.context.trace_id:032x}" for span in found if span.context} == {TRACE}
    assert {f"{span.parent.span_id:016x}" for span in found if span.parent} == {PARENT}
    failed = [((span.attributes or {})["mail.channel"], span.status.status_code is StatusCode.ERROR) for span in found]
    assert sorted(failed) == [("maildir", False), ("smtp", False), ("smtp", True)]


async def test_without_a_trace_the_span_begins_one(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    async with posting(tmp_path) as post:
        await post.bus.deliver(CONFIRMED, "o-1", confirmed())
        await until("a span", lambda: len(spans.get_finished_spans()) == 1)
    assert spans.get_finished_spans()[0].parent is None


def test_a_wrong_setting_is_one_line_and_64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from atoll_notifications.__main__ import main

    (tmp_path / "keys").mkdir()
    for name, value in {"SLOT": "notifications/1", "HOST": "127.0.0.1", "PORT": "0", "DATA": str(tmp_path / "d"),
                        "KEYS": str(tmp_path / "keys"), "BUS": "tcp://127.0.0.1:9"}.items():  # fmt: skip
        monkeypatch.setenv(f"ATOLL_{name}", value)
    monkeypatch.setenv("NOTIFICATIONS_SMTP", "nonsense")
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == atoll.ConfigurationError.exit_code == 64
