"""A part for the agent's tests: an HTTP server that is ready, not ready, hanging or gone, as its settings say."""

import http.server
import json
import os
import signal
import socketserver
import sys
import time

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


def main() -> None:
    if exit_code := os.environ.get("FAKE_EXIT"):
        print("fake: this was asked for", flush=True)
        sys.exit(int(exit_code))
    if os.environ.get("FAKE_DRAIN") == "never":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    time.sleep(float(os.environ.get("FAKE_START_SECONDS", "0")))
    print(json.dumps({"time": "2026-01-01T00:00:00.000Z", "level": "info", "event": "fake is up"}), flush=True)
    Server((os.environ["ATOLL_HOST"], int(os.environ["ATOLL_PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
