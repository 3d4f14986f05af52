"""The bus's verbs at the command line: bad words are one line naming them, and what comes back is readable."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atoll_ops import busverbs, busview, cli, sockets, whyview
from atoll_ops.control import why
from atoll_ops.errors import OperationError
from atoll_ops.state import State

MADE, STORED = "2026-01-05T09:30:00.000Z", 1767605400020
EVENT = {
    "seq": 42, "topic": "orders.order.placed.v1", "subject": "o-1", "event_id": "e-1", "producer": "orders/u",
    "pseq": 17, "stored_ms": STORED, "time": MADE, "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
}  # fmt: skip
GROUP = {"topics": [EVENT["topic"]], "lag": 3, "floor": 41, "members": 1, "detached": False}


def step(what: str, group: str = "payments", attempt: int = 1, text: str = "", at: int = 1) -> dict[str, Any]:
    return {
        "at_ms": STORED + at, "group": group, "what": what, "attempt": attempt, "slot": f"{group}/1", "text": text,
        "fence": 1,
    }  # fmt: skip


#: What is typed → what the one line must name.
WRONG: dict[str, tuple[list[str], str]] = {
    "replay without a range": (["replay", "sales"], "--range"),
    "a range of words": (["replay", "sales", "--range", "a..b"], "--range a..b"),
    "a range backwards": (["replay", "sales", "--range", "9..1"], "--range 9..1"),
    "too long a range": (["replay", "sales", "--range", "0..10000"], "--range 0..10000"),
    "a range with one end": (["dlq", "replay", "sales", "--range", "5"], "--range 5"),
    "seq and range": (["dlq", "replay", "sales", "--seq", "1", "--range", "1..2"], "--seq or --range"),
    "two keys": (["dlq", "replay", "sales", "o-1", "--key", "o-2"], "--key"),
    "a seq below nought": (["dlq", "replay", "sales", "--seq", "-1"], "--seq"),
    "a letter nobody named": (["dlq", "show", "sales"], "--seq"),
    "detach without a reason": (["group", "detach", "sales"], "--reason"),
    "tap of nothing": (["tap"], "PATTERN"),
    "tap of no events": (["tap", "*", "--count", "0"], "--count"),
    "publish without data": (["publish", "a.b.v1"], "DATA"),
    "publish of words": (["publish", "a.b.v1", "{"], "DATA: expected JSON"),
    "publish of two": (["publish", "a.b.v1", "{}", "--file", "x"], "DATA"),
    "publish of no file": (["publish", "a.b.v1", "--file", "/nowhere"], "/nowhere"),
    "fault of no kind": (["fault", "put", "sales", "lose", "--seconds", "1"], "lose"),
    "fault without a limit": (["fault", "put", "sales", "drop"], "--seconds"),
    "fault for ever": (["fault", "put", "sales", "drop", "--seconds", "901"], "--seconds"),
    "fault of nothing": (["fault", "put", "sales", "drop", "--seconds", "1", "--share", "0"], "--share"),
    "why of nothing": (["why"], "EVENT_ID"),
    "contracts of no range": (["contracts", "check", "--range", "HEAD"], "--range HEAD"),
}


@pytest.mark.parametrize(("words", "named"), WRONG.values(), ids=WRONG)
def test_words_that_make_no_sense_are_one_line_naming_them(
    words: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["atoll", *words])
    monkeypatch.setenv("ATOLL_ROOT", str(tmp_path))
    assert cli.main() in (1, 2)
    said = capsys.readouterr()
    assert said.out == ""
    assert named in said.err
    assert said.err.startswith("atoll: ")
    assert said.err.count("\n") == 1


# ---- replays -----------------------------------------------------------------------------------------------------


def replay_state(waiting: int, done: int = 0, duplicate: int = 0, failed: int = 0) -> dict[str, Any]:
    total = waiting + done + duplicate + failed
    counts = {"total": total, "waiting": waiting, "done": done, "duplicate": duplicate, "failed": failed}
    return {"replays": [counts | {"ended": waiting == 0}]}


def followed(*states: dict[str, Any], seconds: float = 5, replayed: int = 3, held_back: int = 0) -> int:
    coming: Iterator[dict[str, Any]] = iter(states)
    answer = {"replayed": replayed, "held_back": held_back, "replay": "1-1"}
    return busverbs.follow_replay(lambda _: next(coming), "sales", answer, seconds)


def test_a_replay_is_followed_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert followed(replay_state(3), replay_state(1, done=2), replay_state(0, done=2, duplicate=1)) == 0
    assert capsys.readouterr().out == "replayed 2, deduplicated 1, failed 0\n"


def test_one_that_fails_again_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert followed(replay_state(0, done=2, failed=1), held_back=4) == 1
    assert capsys.readouterr().out.splitlines() == [
        "sales: 4 held back behind an earlier dead letter of their key", "replayed 2, deduplicated 0, failed 1",
    ]  # fmt: skip


def test_a_replay_without_an_end_says_what_waits() -> None:
    with pytest.raises(OperationError, match="2 of 3 still wait after 0 s"):
        followed(replay_state(2, done=1), seconds=0)
    with pytest.raises(OperationError, match="the broker began anew"):
        followed({"replays": []})


def test_nothing_to_replay_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert followed(replayed=0) == 0
    assert capsys.readouterr().out == "replayed 0, deduplicated 0, failed 0\n"


# ---- one event's story -------------------------------------------------------------------------------------------


def story(*steps: dict[str, Any], **group: Any) -> str:
    told = why.told({"event": EVENT, "steps": list(steps), "complete_since_ms": 0}, {"payments": GROUP | group})
    return "\n".join(whyview.lines(told, "http://127.0.0.1:16686"))


def test_the_story_has_every_step_with_its_time_and_who(capsys: pytest.CaptureFixture[str]) -> None:
    said = story(
        step("leased"), step("nack", text="KeyError: 'x'", at=5), step("leased", attempt=2, at=300),
        step("dead", attempt=2, text="FAILED: KeyError", at=310), step("replayed", text="by amy", at=9000),
        step("leased", at=9001), step("duplicate", at=9002),
    )  # fmt: skip
    lines = said.splitlines()
    assert lines[0] == "orders.order.placed.v1  o-1  (seq 42, id e-1)"
    assert lines[1] == f"trace {'a' * 32}  http://127.0.0.1:16686/trace/{'a' * 32}"
    told = [line.split(" s ", 1)[1].split() for line in lines[3:] if " s " in line]
    assert told[0] == ["made,", "number", "17", "of", "orders/u"]
    assert [" ".join(one) for one in told[2:]] == [
        "payments delivered to payments/1, attempt 1",
        "payments failed at payments/1, attempt 1: KeyError: 'x'",
        "payments delivered to payments/1, attempt 2",
        "payments dead letter after 2 attempts: FAILED: KeyError",
        "payments to be delivered again: by amy",
        "payments delivered to payments/1, attempt 1",
        "payments known already to payments/1: no second effect (deduplicated)",
    ]
    assert "+0.025 s" in said, "relative to when it was made"
    assert lines[-1].split() == ["✓", "payments", "handled"]


STANDS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "handled long ago": ([], {"floor": 42}, "✓ payments handled: before the steps that are remembered"),
    "nobody is there": ([], {"members": 0}, "… payments waits: the group has no member"),
    "detached": ([], {"members": 0, "detached": True}, "… payments waits: the group is detached"),
    "behind others": ([], {}, "… payments waits: 3 events wait in this group"),
    "in hand": ([step("leased", attempt=2)], {}, "… payments in hand: with payments/1, attempt 2"),
    "failed": ([step("nack", text="x")], {}, "… payments waits: to be delivered again, after nack"),
    "dead": ([step("dead", text="no money")], {}, "✕ payments dead: no money"),
    "handled": ([step("done")], {}, "✓ payments handled"),
    "again": (
        [step("done"), step("replayed")], {"floor": 50}, "… payments waits: to be delivered again, after replayed",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("steps", "group", "line"), STANDS.values(), ids=STANDS)
def test_the_story_ends_with_how_it_stands(steps: list[dict[str, Any]], group: dict[str, Any], line: str) -> None:
    lines = [" ".join(one.split()) for one in story(*steps, **group).splitlines()]
    assert line in lines
    assert (lines[-1] == "once it is mended: ./atoll dlq replay payments --key o-1") == ("dead" in line)


def test_a_story_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    told = why.told({"event": EVENT, "steps": [step("nack", text="\x1b[2J")], "complete_since_ms": 0}, {})
    whyview.show(told, None)
    assert "\x1b" not in capsys.readouterr().out


def test_there_is_a_link_only_to_a_jaeger_that_has_pages(tmp_path: Path) -> None:
    state = State(tmp_path)
    assert whyview.pages_of(state) is None, "no credentials yet"
    for body, pages in ((b"<html>This is not the Jaeger UI</html>", False), (b"<html>Jaeger</html>", True)):
        with answering(body) as address:
            state.credentials.write_text(json.dumps({"jaeger": address}))
            assert whyview.pages_of(state) == (address if pages else None)
    assert whyview.pages_of(state) is None, "it is gone"


class answering:  # noqa: N801 - read as a verb
    """An HTTP server for one request."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._socket = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> str:
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.recv(65536)
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(self._body)}\r\n\r\n"
            connection.sendall(head.encode() + self._body)


# ---- a tap's stream ----------------------------------------------------------------------------------------------

STREAM = (
    b": still here\n\n"
    b'id: 8\nevent: event\ndata: {"id":"e","time":"t","type":"a.b.v1","subject":"o-1","data":{"x":"\\u001b[2J"}}\n\n'
    b'event: missed\ndata: {"events":3,"why":"too slow"}\n\n'
    b'id: 9\nevent: event\ndata: {"id":"e","time":"t","type":"a.b.v1","subject":"o-2","data":null}\n\n'
)


class Streaming:
    """Control's socket, played: one connection, which gets these bytes and is closed."""

    def __init__(self, state: State, body: bytes, status: str = "200 OK") -> None:
        state.prepare()
        self._listener = sockets.listen(state.control_socket)
        self._listener.setblocking(True)
        self._listener.listen()
        self._said = f"HTTP/1.1 {status}\r\nContent-Type: text/event-stream\r\n\r\n".encode() + body
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(self._said)

    def end(self) -> None:
        self._thread.join()
        self._listener.close()


def look(count: int | None = None, *, as_json: bool = False) -> busverbs.Look:
    return busverbs.Look(count=count, seconds=None, as_json=as_json)


def test_a_tap_is_a_line_an_event_and_says_what_was_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = State(tmp_path)
    served = Streaming(state, STREAM)
    assert busverbs.tap(state, "/ops/events?topics=*", look(2)) == 0
    served.end()
    said = capsys.readouterr()
    first, lost, second = said.out.splitlines()
    assert first.split()[:5] == ["8", "t", "a.b.v1", "o-1", "e"]
    assert lost == "lost 3: too slow"
    assert second.split() == ["9", "t", "a.b.v1", "o-2", "e", "null"]
    assert said.err == "2 events, lost 3\n"
    assert "\x1b" not in said.out


def test_a_tap_as_json_is_an_object_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = State(tmp_path)
    served = Streaming(state, STREAM)
    busverbs.tap(state, "/ops/events?topics=*", look(2, as_json=True))
    served.end()
    first, lost, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["seq"], first["event"]["subject"]) == (8, "o-1")
    assert lost == {"missed": 3, "why": "too slow"}


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        ("200 OK", b"", "control ended the stream"),
        ("200 OK", b'event: refused\ndata: {"text":"ACL: no"}\n\n', "ACL: no"),
        ("422 Unprocessable", b'{"field":"topics","detail":"Expected a topic"}', "topics: Expected a topic"),
    ],
)
def test_a_stream_that_ends_says_why(tmp_path: Path, status: str, body: bytes, why: str) -> None:
    state = State(tmp_path)
    served = Streaming(state, body, status)
    with pytest.raises(OperationError, match=why):
        busverbs.tap(state, "/ops/events?topics=*", look())
    served.end()


def test_without_control_a_tap_says_so(tmp_path: Path) -> None:
    with pytest.raises(OperationError, match="control does not answer"):
        busverbs.tap(State(tmp_path), "/ops/events?topics=*", look())


# ---- lists -------------------------------------------------------------------------------------------------------


def test_a_group_that_is_not_as_usual_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    plain = {"lag": 0, "in_flight": 0, "delayed": 0, "dead": 0, "parked_keys": 0, "members": 1}
    odd = plain | {
        "detached": True, "stalled_ms": 61_000, "rate": 5, "gaps": [{"first": 1, "last": 9, "why": "retention"}],
    }  # fmt: skip
    busview.groups({"groups": {"sales": plain, "old": odd}})
    _, first, second = capsys.readouterr().out.splitlines()
    for words in ("detached", "no progress for 61 s", "at most 5 events/s", "never got 1 to 9: retention"):
        assert words in first
    assert second.split() == ["sales", "0", "0", "0", "0", "0", "1"]


def test_a_fault_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    fault = {
        "id": "3-1", "group": "sales", "topic": "a.b.v1", "kind": "delay", "share": 0.5, "delay_ms": 200,
        "left_ms": 4000, "by": "amy", "hits": 7,
    }  # fmt: skip
    busview.faults({"faults": [fault]})
    busview.faults({"faults": []})
    assert capsys.readouterr().out.splitlines() == [
        "3-1     delay by 200 ms  sales: a.b.v1  50% of deliveries  4 s left  7 hit  by amy", "no faults",
    ]  # fmt: skip
