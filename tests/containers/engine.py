"""A composed system, run as its model says: a container a service, in namespaces of its own, on networks of its own.

What an engine does is done here by hand, in as few lines as it takes: an overlay of the image's layers for a root,
read-only where the model says so; volumes, configs and tmpfs mounted; no capability, no new privilege, the model's
user; one network namespace a container, joined by bridges that lie in one more; names by /etc/hosts. CMD is PID 1.

Not played: limits of memory and processes (no cgroup), seccomp, the engine's name server, its logs, published ports.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rules
from images import Image
from namespaces import Base
from polling import poll_until

_PREFIX = "atoll"
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
#: Dies with whoever runs the tests, whatever that dies of.
_MORTAL = ["setpriv", "--pdeathsig", "KILL"]


@dataclass
class Container:
    """A started container: `process` is its outermost process, `pid` its PID 1 as the machine sees it."""

    name: str
    process: subprocess.Popen[bytes]
    pid: int


class Composed:
    """A system between `open` and `close`."""

    def __init__(self, folder: Path, model: dict[str, Any], images: dict[str, Image], base: Base) -> None:
        self.folder = folder
        self.model = model
        self.images = images
        self.base = base
        self.running: dict[str, Container] = {}
        self.addresses: dict[str, dict[str, str]] = {}  # service -> network -> address
        self._id = f"{_PREFIX}-{os.getpid()}"

    # ---- networks --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make networks and a network namespace for every service (the collector's too, which no image is built of)."""
        sweep()
        switch = self._namespace("switch")
        _ip("netns", "add", switch)
        for name in [*self.model["services"], "browser"]:
            _ip("netns", "add", self._namespace(name))
            _ip("-n", self._namespace(name), "link", "set", "lo", "up")
        for number, network in enumerate(sorted(self.model["networks"]), start=1):
            _ip("-n", switch, "link", "add", f"br{number}", "type", "bridge")
            _ip("-n", switch, "link", "set", f"br{number}", "up")
            members = [name for name, one in self.model["services"].items() if network in (one.get("networks") or {})]
            browsers = ["browser"] if not self.model["networks"][network].get("internal") else []
            for host, name in enumerate([*members, *browsers], start=10):
                self._plug(switch, number, name, network, f"10.201.{number}.{host}")

    def _plug(self, switch: str, number: int, name: str, network: str, address: str) -> None:
        inside, outside = f"eth{number}", f"v{number}h{address.rpartition('.')[2]}"
        space = self._namespace(name)
        _ip("-n", switch, "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", space)
        _ip("-n", switch, "link", "set", outside, "master", f"br{number}", "up")
        _ip("-n", space, "addr", "add", f"{address}/24", "dev", inside)
        _ip("-n", space, "link", "set", inside, "up")
        self.addresses.setdefault(name, {})[network] = address

    def _namespace(self, name: str) -> str:
        return f"{self._id}-{name}"

    def _hosts(self, name: str) -> Path:
        """/etc/hosts of a container: itself, and whoever shares a network with it."""
        own = self.addresses.get(name, {})
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for address in list(own.values())[:1])]
        for other, places in self.addresses.items():
            shared = [address for network, address in places.items() if network in own and other != name]
            lines += [f"{address} {other}" for address in shared[:1]]
        path = self.folder / f"{name}.hosts"
        path.write_text("\n".join(lines) + "\n")
        return path

    # ---- containers ------------------------------------------------------------------------------------------

    def start(self, name: str) -> Container:
        """Start a service's container; it runs when this returns."""
        service, image = self.model["services"][name], self.images[name]
        root = self.folder / "containers" / f"{name}-{time.monotonic_ns()}"
        for part in ("upper", "work", "merged"):
            (root / part).mkdir(parents=True)
        script = "\n".join([*self._root(root, service, image), self._enter(root / "merged", service, image)])
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [
                    *_MORTAL, "nsenter", f"--net=/run/netns/{self._namespace(name)}", "unshare", "--mount", "--uts",
                    "--ipc", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-euc", script,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        first = poll_until(f"{name} to have a PID 1", lambda: children.read_text().split(), bool, seconds=10)
        self.running[name] = Container(name, process, int(first[0]))
        return self.running[name]

    def _root(self, root: Path, service: dict[str, Any], image: Image) -> list[str]:
        """Shell lines that make a container's root directory."""
        merged = root / "merged"
        lower = ":".join(map(str, reversed(image.layers)))
        lines = [
            f"hostname {service.get('hostname', image.name)}",
            f"mount -t overlay overlay -o lowerdir={lower},upperdir={root}/upper,workdir={root}/work {merged}",
            *self.base.mounts(str(merged)),
            f"mount -t proc proc {merged}/proc",
            f"mount -t tmpfs -o mode=0755 tmpfs {merged}/dev",
            *(f"touch {merged}/dev/{name} && mount --bind /dev/{name} {merged}/dev/{name}" for name in _DEVICES),
            f"mkdir -m 1777 {merged}/dev/shm && mount -t tmpfs -o mode=1777 tmpfs {merged}/dev/shm",
            f"mount --bind {self._hosts(image.name)} {merged}/etc/hosts",
        ]
        for place in service.get("tmpfs") or []:
            target, _, options = place.partition(":")
            assert options, f"tmpfs {place}: expected its mode and size"
            lines += [f"mkdir -p {merged}{target}", f"mount -t tmpfs -o {options} tmpfs {merged}{target}"]
        for mount in sorted(service.get("volumes") or [], key=lambda one: str(one["target"])):
            lines += _bind(self._source(mount, image), f"{merged}{mount['target']}", bool(mount.get("read_only")))
        for config in service.get("configs") or []:
            file = Path(self.model["configs"][config["source"]]["file"])
            lines += _bind(file, f"{merged}{config['target']}", read_only=True)
        if service.get("read_only"):
            lines.append(f"mount -o remount,ro {merged}")
        return lines

    def _enter(self, merged: Path, service: dict[str, Any], image: Image) -> str:
        """The shell line that becomes the container's first process."""
        command = service.get("command") or image.command
        env = image.env | (service.get("environment") or {})
        words = ["chroot", str(merged), *_privileges(service, image)]
        told = [f"{name}={value}" for name, value in env.items()]
        words += ["env", "-i", f"--chdir={image.workdir}", *told, *command]
        return f"exec {shlex.join(words)}"

    def _source(self, mount: dict[str, Any], image: Image) -> Path:
        """Where a volume lies; a new one takes owner and mode of the folder that it covers, as engines do it."""
        if mount["type"] == "bind":
            return Path(str(mount["source"]))
        place = self.folder / "volumes" / str(mount["source"])
        if not place.exists():
            place.mkdir(parents=True)
            place.chmod(0o755)
        options = self.model["volumes"][mount["source"]].get("driver_opts") or {}
        if options.get("type") == "tmpfs":  # one file system for all who mount it: a folder plays it
            told = dict(option.split("=") for option in options["o"].split(","))
            os.chown(place, int(told["uid"]), int(told["gid"]))
            place.chmod(int(told["mode"], 8))
        elif not any(place.iterdir()):
            for layer in reversed(image.layers):
                covered = layer / str(mount["target"]).lstrip("/")
                if covered.is_dir():
                    os.chown(place, covered.stat().st_uid, covered.stat().st_gid)
                    place.chmod(covered.stat().st_mode & 0o7777)
                    break
        return place

    def run(self, name: str, *words: str, user: str = "", seconds: float = 60) -> tuple[int, str]:
        """`docker compose run --rm NAME WORDS`: a container for one command; exit code and output."""
        service = self.model["services"][name] | ({"command": list(words)} if words else {}) | (
            {"user": user} if user else {}
        )  # fmt: skip
        kept, self.model["services"][name] = self.model["services"][name], service
        log = self.log(name)
        before = log.stat().st_size if log.exists() else 0
        try:
            container = self.start(name)
            code = container.process.wait(seconds)
        finally:
            self.model["services"][name] = kept
            self.running.pop(name, None)
        return code, log.read_bytes()[before:].decode()

    def exec(self, name: str, *words: str, seconds: float = 60) -> tuple[int, str]:
        """`docker compose exec NAME WORDS`; exit code and what it printed (stdout alone)."""
        service, image = self.model["services"][name], self.images[name]
        env = [f"{key}={value}" for key, value in (image.env | (service.get("environment") or {})).items()]
        done = subprocess.run(
            [
                "nsenter", "--target", str(self.running[name].pid), "--mount", "--uts", "--ipc", "--net", "--pid",
                "--root", "--wd", *_privileges(service, image), "env", "-i", *env, *words,
            ],
            text=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def stop(self, name: str) -> tuple[int, float]:
        """`docker compose stop NAME`: SIGTERM to PID 1, SIGKILL after the grace period; exit code and seconds."""
        container, began = self.running.pop(name), time.monotonic()
        os.kill(container.pid, signal.SIGTERM)
        grace = rules.seconds(self.model["services"][name].get("stop_grace_period", "10s"))
        try:
            code = container.process.wait(grace)
        except subprocess.TimeoutExpired:
            os.kill(container.pid, signal.SIGKILL)
            container.process.wait(10)
            code = 137
        return code, time.monotonic() - began

    def log(self, name: str) -> Path:
        """What a service's containers printed."""
        path = self.folder / "logs" / f"{name}.log"
        path.parent.mkdir(exist_ok=True)
        return path

    # ---- from inside -----------------------------------------------------------------------------------------

    def python(self, name: str, code: str, given: object = None, seconds: float = 30) -> Any:
        """Run Python in a service's network namespace (or the browser's), with its /etc/hosts; the JSON it prints."""
        space = self._namespace(name)
        hosts = Path("/etc/netns", space, "hosts")  # `ip netns exec` mounts it over /etc/hosts
        if not hosts.exists():
            hosts.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._hosts(name), hosts)
        done = subprocess.run(
            ["ip", "netns", "exec", space, sys.executable, "-c", code], input=json.dumps(given), text=True,
            capture_output=True, timeout=seconds, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"in {name}'s network: {done.stderr}"
        return json.loads(done.stdout)

    def close(self) -> None:
        """End everything that was started, at once; take the networks away."""
        for container in self.running.values():
            container.process.kill()  # --kill-child takes its PID 1, and that everything in the namespace
        for container in self.running.values():
            container.process.wait(10)
        self.running.clear()
        _remove(self._id)


def sweep() -> None:
    """Take away the network namespaces of test runs that died before they could."""
    for line in subprocess.run(["ip", "netns", "list"], text=True, capture_output=True, check=True).stdout.splitlines():
        words = line.split()[0].split("-") if line.split() else []
        if len(words) >= 3 and words[0] == _PREFIX and words[1].isdecimal() and not Path("/proc", words[1]).exists():
            _remove(f"{_PREFIX}-{words[1]}")


def _remove(prefix: str) -> None:
    for place in Path("/run/netns").glob(f"{prefix}-*"):
        subprocess.run(["ip", "netns", "del", place.name], check=False, capture_output=True)
    for place in Path("/etc/netns").glob(f"{prefix}-*"):
        shutil.rmtree(place, ignore_errors=True)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def _bind(source: Path, target: str, read_only: bool) -> list[str]:
    make = f"mkdir -p {target}" if source.is_dir() else f"mkdir -p {Path(target).parent} && touch {target}"
    lines = [make, f"mount --bind {source} {target}"]
    return [*lines, f"mount -o remount,bind,ro {target}"] if read_only else lines


def _privileges(service: dict[str, Any], image: Image) -> list[str]:
    """Become the model's user, with what it leaves of root's rights."""
    user, _, group = str(service.get("user") or image.user or "0:0").partition(":")
    kept = [f"+{name.lower()}" for name in service.get("cap_add") or []]
    assert service.get("cap_drop") == ["ALL"], "only containers without capabilities are played"
    assert "no-new-privileges:true" in service.get("security_opt", [])
    return [
        "setpriv", f"--reuid={user}", f"--regid={group or user}", "--clear-groups", "--inh-caps=-all",
        f"--bounding-set={','.join(['-all', *kept])}", "--no-new-privs",
    ]  # fmt: skip
