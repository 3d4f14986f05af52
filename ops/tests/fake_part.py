"""A part for the agent's tests: an HTTP server that is ready, not ready, hanging or gone, as its settings say."""

import http.server
import json
import os
import signal
import socketserver
import sys
import time
from pathlib import Path

BEGAN = time.monotonic()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        hang_after = float(os.environ.get("FAKE_HANG_AFTER", "inf"))
        while time.monotonic() - BEGAN > hang_after:
            time.sleep(1)
        ready = os.environ.get("FAKE_READY", "yes") == "yes"
        body = json.dumps({"ready": ready, "why": "" if ready else "waiting for: a wonder", "degraded": []}).encode()
        self.send_response(200 if ready or self.path == "/live" else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


def drain(*_: object) -> None:
    time.sleep(float(os.environ.get("FAKE_DRAIN_SECONDS", "0")))
    sys.exit(0)


def first_times() -> bool:
    """Whether this is one of the first FAKE_EXIT_TIMES starts (default: every one is)."""
    data = Path(os.environ["ATOLL_DATA"])
    data.mkdir(parents=True, exist_ok=True)
    with (data / "starts").open("a+") as file:
        file.write("x")
        return file.tell() <= int(os.environ.get("FAKE_EXIT_TIMES", "1000000"))


def main() -> None:
    if (exit_code := os.environ.get("FAKE_EXIT")) and first_times():
        time.sleep(float(os.environ.get("FAKE_EXIT_AFTER", "0")))
        print("fake: this was asked for", flush=True)
        sys.exit(int(exit_code))
    if os.environ.get("FAKE_DRAIN") == "never":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, drain)
    time.sleep(float(os.environ.get("FAKE_START_SECONDS", "0")))
    print(json.dumps({"time": "2026-01-01T00:00:00.000Z", "level": "info", "event": "fake is up"}), flush=True)
    Server((os.environ["ATOLL_HOST"], int(os.environ["ATOLL_PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
