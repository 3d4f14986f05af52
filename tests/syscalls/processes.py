"""Parts under test: forked by a nursery, watched by pidfd, killed by strace at the k-th syscall of one thread."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fleet import REPOSITORY
from polling import poll_until

NURSERY = Path(__file__).parent / "nursery" / "nursery.py"
#: What a thread of libzmq calls itself.
_ZMQ_THREADS = {"ZMQbg/IO/0": "io", "ZMQbg/Reaper": "reaper"}
#: Whatever changes something that outlives the process, or tells somebody: files, locks, sockets, other threads.
#: `-shm` is not among them: SQLite maps it, and a store into mapped memory is no syscall, nor does a kill undo it.
SYSCALLS = (
    "write", "writev", "pwrite64", "pwritev", "fsync", "fdatasync", "ftruncate", "fallocate",
    "openat", "mkdir", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "chmod", "fchmod",
    "fcntl", "flock", "bind", "listen", "accept4", "connect", "sendto", "sendmsg", "recvfrom", "clone3",
)  # fmt: skip
#: The thread is not named where only one is traced.
_ENTERED = re.compile(r"^(\d+ +)?(\w+)\(", re.MULTILINE)
#: A kill at the very moment in which strace lets go: it is on its way then, and strace has not noted it.
AFTERMATH_SECONDS = 0.3
_KILLED, _EXITED = "+++ killed by SIGKILL +++", "+++ exited with"


class Part:
    """One process of a part. It is not our child, so that it is known by a pidfd and not waited for."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log
        self.pidfd = os.pidfd_open(pid)
        self._closed = False

    @property
    def dead(self) -> bool:
        """Whether it has ended."""
        return self.ended_within(0)

    def stopped(self) -> bool:
        """Whether it is held by SIGSTOP."""
        return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return

    def end(self) -> None:
        """SIGKILL, and wait until it is gone. A second call does nothing."""
        if self._closed:
            return
        self.signal(signal.SIGKILL)
        assert self.ended_within(10), f"pid {self.pid} did not end within 10 s"
        os.close(self.pidfd)
        self._closed = True

    def ended_within(self, seconds: float) -> bool:
        """Wait for its end."""
        return bool(select.select([self.pidfd], [], [], seconds)[0])

    def threads(self) -> dict[str, list[int]]:
        """Thread ids by role: main, io, reaper, writer, …; a role is what the thread's name begins with."""
        found: dict[str, list[int]] = {}
        for task in sorted(Path(f"/proc/{self.pid}/task").iterdir(), key=lambda path: int(path.name)):
            found.setdefault(self._role(task), []).append(int(task.name))
        return found

    def _role(self, task: Path) -> str:
        if task.name == str(self.pid):
            return "main"
        name = (task / "comm").read_text().strip()
        return _ZMQ_THREADS.get(name) or re.split(r"[ _]", name)[0].lower()

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""


class Nursery:
    """Forks parts of one module in one environment. Use it in one thread at a time."""

    def __init__(self, environment: str, module: str, path: Path | None = None) -> None:
        python = REPOSITORY / ".atoll" / "env" / environment / "bin" / "python"
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("ATOLL_", "PYTHON"))}
        if path is not None:
            variables["PYTHONPATH"] = str(path)
        self._process = subprocess.Popen(
            [str(python), str(NURSERY), module],
            env=variables | {"OTEL_SDK_DISABLED": "true", "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._read() == "ready", f"the nursery of {module} did not start"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def start(
        self, environment: Mapping[str, str], folder: Path, *, plant: Path | None = None, held: bool = False
    ) -> Part:
        """A new process. `held`: it stops just before its main()."""
        log = folder / "log"
        wish = {
            "environment": dict(environment), "folder": str(folder), "log": str(log),
            "plant": str(plant) if plant else None, "held": held,
        }  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        part = Part(int(self._read()), log)
        if held:  # a SIGCONT that came before its SIGSTOP would be none
            poll_until("it to hold still", part.stopped, seconds=10, every=0.002)
        return part

    def end(self) -> None:
        """End it, and with it whatever it has started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)


@dataclass(frozen=True, order=True)
class Point:
    """The moment before the `number`-th call of `syscall` (from 1) by the threads of `role`."""

    role: str
    syscall: str
    number: int

    def __str__(self) -> str:
        return f"{self.role}:{self.syscall}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> Point:
        """The inverse of str()."""
        role, syscall, number = text.split(":")
        return cls(role, syscall, int(number))


def can_trace() -> str | None:
    """None, or why this machine cannot trace a process that is no child of the tracer."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        with _strace(["-e", "trace=none"], [sleeper.pid], Path(os.devnull)):
            return None
    except AssertionError as error:
        return f"strace can not attach here: {error}"
    finally:
        sleeper.kill()
        sleeper.wait()


@contextmanager
def _strace(options: list[str], threads: list[int], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """strace, attached to these threads and to no other. It has let go of them when the block ends."""
    attach = [word for thread in threads for word in ("-p", str(thread))]
    with output.with_suffix(".said").open("wb") if output != Path(os.devnull) else output.open("wb") as said:
        tracer = subprocess.Popen(
            ["strace", "-q", "-o", str(output), *options, *attach], stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
    try:
        for thread in threads:
            _wait_attached(tracer, thread)
        yield tracer
    finally:
        tracer.terminate()  # it detaches; if what it traced has died, so has it
        try:
            tracer.wait(timeout=10)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.wait()


def _wait_attached(tracer: subprocess.Popen[bytes], thread: int) -> None:
    """Or until its process is dead: what the others of it do may bring the kill before anybody has looked."""
    status = Path(f"/proc/{thread}/status")

    def traced_by() -> int:
        if not status.exists() or "\nState:\tZ" in status.read_text():
            return tracer.pid
        assert tracer.poll() is None, f"strace ended with {tracer.returncode}"
        found = re.search(r"TracerPid:\s*(\d+)", status.read_text())
        return int(found[1]) if found else 0

    poll_until(f"strace to hold thread {thread}", traced_by, lambda pid: pid == tracer.pid, seconds=10, every=0.002)


@contextmanager
def counting(part: Part, output: Path) -> Iterator[Counter[tuple[str, str]]]:
    """Counts the calls of each thread's role while the block runs; the figures are there when it has ended."""
    counts: Counter[tuple[str, str]] = Counter()
    roles = {thread: role for role, threads in part.threads().items() for thread in threads}
    with _strace(["-e", f"trace={','.join(SYSCALLS)}"], list(roles), output):
        yield counts
    for thread, syscall in _ENTERED.findall(output.read_text(errors="replace")):
        counts[roles[int(thread or part.pid)], syscall] += 1


class Shot:
    """One armed kill."""

    def __init__(self, part: Part, output: Path) -> None:
        self._part = part
        self._output = output

    def killed(self) -> bool:
        """Whether the part died of it, if only after its script's last answer. Raises AssertionError if it ended by
        itself.

        Asked when strace has let go. The other threads of a process end a little later than the one that was traced.
        """
        said = self._output.read_text(errors="replace")
        assert _EXITED not in said, f"it ended by itself: {said[-300:]}\n{self._part.last_words()}"
        ended = self._part.ended_within(10 if _KILLED in said else AFTERMATH_SECONDS)
        assert ended or _KILLED not in said, f"pid {self._part.pid} has outlived its SIGKILL"
        return ended


@contextmanager
def armed(part: Part, point: Point, output: Path) -> Iterator[Shot]:
    """While the block runs, the part dies on entering the call that `point` names.

    Only the threads of its role are traced, because strace counts calls a thread: with all of them traced, `when=k`
    would be whoever comes first to k calls of his own, and the later calls of the slower ones would never be tried.
    """
    output.unlink(missing_ok=True)
    inject = f"inject={point.syscall}:signal=KILL:when={point.number}"
    with _strace(["-e", f"trace={point.syscall}", "-e", inject], part.threads()[point.role], output):
        yield Shot(part, output)
