"""Stand-ins for what Jaeger's tests would otherwise download or compile: a `jaeger`, a `go`, an archive, the pins."""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
import tarfile
from pathlib import Path

from atoll_ops.jaeger.pins import this_platform

REAL = Path(__file__).resolve().parents[2] / "observability" / "jaeger"
VERSION = "2.99.0"
FOLDER = f"jaeger-{VERSION}-{this_platform()}"

#: Answers `version` and `validate` as a 2.x does; else it is ready on its health port and listens on the others.
PROGRAM = f"""#!{sys.executable}
import http.server, json, os, socket, sys, threading
words = sys.argv[1:]
if words == ["version"]:
    print("some line of a log", json.dumps({{"gitVersion": "v{VERSION}"}}), sep="\\n")
    sys.exit()
files = words[1:] if words[:1] == ["validate"] else words
assert files[::2] == ["--config", "--config"], words
assert all(open(name).read() for name in files[1::2]), words
if words[:1] == ["validate"]:
    sys.exit()
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/status" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass
names = ("JAEGER_QUERY_PORT", "JAEGER_OTLP_GRPC_PORT", "JAEGER_OTLP_HTTP_PORT")
held = [socket.create_server((os.environ["JAEGER_HOST"], int(os.environ[name]))) for name in names]
print("fake: storage " + files[3].rpartition("/")[2] + " data " + os.environ["JAEGER_DATA"], flush=True)
http.server.HTTPServer((os.environ["JAEGER_HOST"], int(os.environ["JAEGER_HEALTH_PORT"])), Health).serve_forever()
"""

#: Lists ten packages, "compiles" them in GOFAKE_SECONDS, and notes each build in GOFAKE_LOG. (A runner sees GO….)
GO = f"""#!{sys.executable}
import os, sys, time
words = sys.argv[1:]
assert os.environ["GOFLAGS"] == "-mod=readonly" and os.environ["CGO_ENABLED"] == "0"
if "GOFAKE_FAILS" in os.environ:
    print("go: downloading something v1.0.0", "go: " + os.environ["GOFAKE_FAILS"], sep="\\n", file=sys.stderr)
    sys.exit(1)
if words[0] == "list":
    print(*(f"package/{{n}}" for n in range(10)), sep="\\n")
    sys.exit()
assert words[0] == "build" and "-trimpath" in words, words
with open(os.environ.get("GOFAKE_LOG", os.devnull), "a") as log:
    log.write("build\\n")
for n in range(10):
    time.sleep(float(os.environ.get("GOFAKE_SECONDS", "0")) / 10)
    print(f"package/{{n}}", flush=True)
with open(words[words.index("-o") + 1], "w") as made:
    made.write({PROGRAM!r})
os.chmod(made.name, 0o755)
"""


def write_program(folder: Path, name: str, text: str) -> Path:
    """An executable in `folder`; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def archive(program: bytes = PROGRAM.encode(), name: str = f"{FOLDER}/jaeger", kind: bytes = tarfile.REGTYPE) -> bytes:
    """A release's archive, with a member that tries to leave its folder beside the program."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for member_name, content in (("../../escaped", b"x"), (f"{FOLDER}/example-hotrod", b"y"), (name, program)):
            member = tarfile.TarInfo(member_name)
            member.size = len(content)
            member.type = kind if member_name == name else tarfile.REGTYPE
            member.linkname = "/etc/passwd" if member.type != tarfile.REGTYPE else ""
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def write_pins(root: Path, packed: bytes | None) -> Path:
    """observability/jaeger under `root`, which pins this archive for this platform (None: no archive)."""
    folder = root / "observability" / "jaeger"
    folder.mkdir(parents=True, exist_ok=True)
    for path in REAL.iterdir():
        if path.suffix in (".yaml", ".mod", ".sum"):
            shutil.copy(path, folder)
    text = f'[release]\nversion = "{VERSION}"\n'
    if packed is not None:
        digest = hashlib.sha256(packed).hexdigest()
        text += f'[release.archives.{this_platform()}]\nsha256 = "{digest}"\nbytes = {len(packed)}\n'
    text += '[module]\npackage = "example.org/jaeger"\njaeger_version = "2.98.0"\n'
    (folder / "pins.toml").write_text(text)
    return folder
