"""What takes time on the bus, followed from the command line: a replay to its end, a tap until somebody has enough."""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from atoll_ops import console, sockets
from atoll_ops.errors import OperationError
from atoll_ops.logview import harmless
from atoll_ops.state import State

_LOOK_EVERY_SECONDS = 0.2
_SILENCE_SECONDS = 15.0  # control says every 5 s that it is there
_LINE_BYTES_MAX = 1 << 22

Ask = Callable[[str], Any]
Said = tuple[str, dict[str, Any], int | None]
"""Kind, what it is about, seq."""


# ---- replays -----------------------------------------------------------------------------------------------------


def would_replay(group: str, answer: dict[str, Any]) -> int:
    """What a dry run found."""
    pending = f", {answer['pending']} wait anyway" if answer.get("pending") else ""
    held = f", {_held_back(answer)}" if answer["held_back"] else ""
    print(f"{group}: {answer['replayed']} would come again{held}{pending}")
    return 0


def follow_replay(ask: Ask, group: str, answer: dict[str, Any], seconds: float) -> int:
    """Wait until every event has met its end again; 1 if one failed. Raises OperationError if that takes too long."""
    if answer["held_back"]:
        print(f"{group}: {_held_back(answer)}")
    deadline, shown = time.monotonic() + seconds, -1
    while answer["replayed"]:
        found = ask(f"/ops/replays?id={answer['replay']}")["replays"]
        if not found:
            raise OperationError("the broker began anew and knows no more how far it is: see `./atoll group list`")
        (now,) = found
        if now["ended"]:
            return _ended(now)
        if now["waiting"] != shown and sys.stdout.isatty():
            shown = now["waiting"]
            console.say(group, f"{now['total'] - shown} of {now['total']}")
        if time.monotonic() >= deadline:
            text = f"{now['waiting']} of {now['total']} still wait after {seconds:g} s"
            raise OperationError(f"{text}: see `./atoll group list` (has {group} a member?)")
        time.sleep(_LOOK_EVERY_SECONDS)
    return _ended({"done": 0, "duplicate": 0, "failed": 0})


def _held_back(answer: dict[str, Any]) -> str:
    return f"{answer['held_back']} held back behind an earlier dead letter of their key"


def _ended(replay: dict[str, Any]) -> int:
    print(f"replayed {replay['done']}, deduplicated {replay['duplicate']}, failed {replay['failed']}")
    return 1 if replay["failed"] else 0


# ---- taps --------------------------------------------------------------------------------------------------------


class Look(msgspec.Struct, frozen=True):
    """When a tap has seen enough, and how it is shown."""

    count: int | None
    seconds: float | None
    as_json: bool


def tap(state: State, path: str, look: Look) -> int:
    """Print what comes, until enough has, or Ctrl-C; then how much there was, on standard error."""
    seen = lost = 0
    deadline = time.monotonic() + look.seconds if look.seconds is not None else float("inf")
    try:
        for kind, about, seq in _streamed(state, path):
            if kind == "event":
                seen += 1
            elif kind == "missed":
                lost += about["events"] or 0
            if kind != "quiet":
                print(_line(kind, about, seq, as_json=look.as_json), flush=True)
            if seen == look.count or time.monotonic() >= deadline:
                break
    except KeyboardInterrupt:
        print(file=sys.stderr)
    print(f"{seen} events, lost {lost}", file=sys.stderr)
    return 0


def _streamed(state: State, path: str) -> Iterator[Said]:
    """The stream, a line at a time. Raises OperationError for a refusal, and where control goes away."""
    connection = sockets.UnixConnection(state.control_socket, _SILENCE_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status >= 400:
            answer = json.loads(response.read())
            field = f"{answer['field']}: " if answer.get("field") else ""
            raise OperationError(field + str(answer.get("detail") or answer.get("title")))
        yield from _parsed(response)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise OperationError(f"control does not answer ({error}): see `./atoll status`") from error
    finally:
        connection.close()
    raise OperationError("control ended the stream: it was stopped, or restarted")


def _parsed(response: http.client.HTTPResponse) -> Iterator[Said]:
    """Server-sent events: fields, a line each, up to an empty line."""
    kind, seq = "event", None
    while line := response.readline(_LINE_BYTES_MAX):
        field, _, value = line.decode(errors="replace").rstrip("\n").partition(": ")
        match field:
            case "id":
                seq = int(value)
            case "event":
                kind = value
            case "data":
                about = json.loads(value)
                if kind == "refused":
                    raise OperationError(about["text"])
                yield kind, about, seq
            case "":
                kind, seq = "event", None
                yield "quiet", {}, None


def _line(kind: str, about: dict[str, Any], seq: int | None, *, as_json: bool) -> str:
    if as_json:
        missed = {"missed": about.get("events"), "why": about.get("why")}
        return json.dumps({"seq": seq, "event": about} if kind == "event" else missed)
    if kind == "missed":
        return harmless(f"lost {about['events'] if about['events'] is not None else 'some'}: {about['why']}")
    data = json.dumps(about.get("data"), ensure_ascii=False)
    return harmless(f"{seq:>8}  {about['time']}  {about['type']}  {about['subject']}  {about['id']}  {data}")


# ---- publishing --------------------------------------------------------------------------------------------------


def data_of(words: str | None, file: Path | None) -> Any:
    """The JSON to publish, from the words or the file. Raises OperationError naming where it is none."""
    if (words is None) == (file is None):
        raise OperationError("publish: expected DATA as JSON, or --file, one of them")
    where, text = ("DATA", words) if file is None else (f"--file {file}", _read(file))
    try:
        return json.loads(text or "")
    except ValueError as error:
        raise OperationError(f"{where}: expected JSON: {error}") from error


def _read(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.read()
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise OperationError(f"--file {file}: expected UTF-8: {error}") from error
