"""Mounts, networks and processes of a test's own, which are gone when it ends, however it ends.

Linux namespaces by hand, as an engine would make them: a private mount namespace for every build step and every
container, named network namespaces, overlay file systems. Only root can do this; elsewhere tests are skipped by name.

Mounts are made inside `unshare --mount` alone, so that the kernel takes them away with the last process in there: this
program never mounts anything in the machine's own view.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from left_out import leave_out

#: Of a root directory: links into /usr, and folders that begin empty, so that nothing of this machine is seen there.
_LINKED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_EMPTY = ("dev", "proc", "sys", "tmp", "run", "root", "home", "var/tmp", "mnt", "usr")
_PYTHON_WANTED = (3, 13)  # what the Dockerfiles name
_TOOLS = ("unshare", "mount", "setpriv", "chroot", "ip", "nsenter", "useradd")


@cache
def missing() -> str:
    """Why containers cannot be played on this machine; empty where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root on Linux can make namespaces"
    absent = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if absent:
        return f"no {', '.join(absent)}"
    with tempfile.TemporaryDirectory(prefix="atoll-overlay-") as folder:  # none lies on an overlay: in a container
        for name in ("lower", "upper", "work", "merged"):
            Path(folder, name).mkdir()
        options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        command = ["mount", "-t", "overlay", "overlay", "-o", options, f"{folder}/merged"]
        private = ["unshare", "--mount", "--propagation", "private", "--pid", "--net", "--fork"]
        tried = subprocess.run([*private, *command], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"no namespace with an overlay file system: {tried.stderr.strip()}"


def need() -> None:
    """Skips the test where containers cannot be played."""
    if why := missing():
        leave_out(f"containers: {why}")


class Base:
    """What stands for the image `python:3.13-slim`: this machine's /usr and a Python, on a root directory of our own.

    As in that image the Python lies in /usr/local and runs as `python`; nothing else of the machine can be seen: no
    home, no /tmp, no repository. `python` is 3.13 where the machine has one, else the Python that runs the tests.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.python, self.version = _find_python()
        root.mkdir()
        for name in _EMPTY:
            (root / name).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        for name in _LINKED:
            if Path("/", name).is_symlink():
                (root / name).symlink_to(Path("/", name).readlink())
            elif Path("/", name).is_dir():
                raise AssertionError(f"/{name} is no link into /usr: this machine's layout is too old to play an image")
        subprocess.run(["cp", "-a", "/etc", str(root / "etc")], check=True)
        for name in ("hosts", "resolv.conf", "hostname", "mtab"):
            (root / "etc" / name).unlink(missing_ok=True)
        shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
        (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
        with (root / "etc" / "ld.so.conf.d" / "python.conf").open("w") as file:
            file.write("/usr/local/lib\n")

    def mounts(self, merged: str) -> list[str]:
        """Shell lines that put the machine's /usr and the Python into a root directory."""
        lines = [f"mount --rbind -o ro /usr {merged}/usr", f"mount -o remount,bind,ro {merged}/usr"]
        if self.python != Path("/usr"):
            lines.append(f"mount --bind {shlex.quote(str(self.python))} {merged}/usr/local")
            lines.append(f"mount -o remount,bind,ro {merged}/usr/local")
        return lines


def _find_python() -> tuple[Path, str]:
    """The prefix of a Python that can make virtual environments, and its version."""
    name = ".".join(map(str, _PYTHON_WANTED))
    pyenv = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{name}.*/bin/python"))
    for candidate in (f"/usr/local/bin/python{name}", f"/usr/bin/python{name}", *map(str, pyenv), sys.executable):
        found = subprocess.run(
            [candidate, "-c", "import ensurepip, sys, venv; print(sys.base_prefix); print(sys.version.split()[0])"],
            capture_output=True, text=True, check=False,
        ) if Path(candidate).exists() else None  # fmt: skip
        if found is not None and found.returncode == 0:
            prefix, version = found.stdout.split()
            if (Path(prefix) / "bin" / "python3").exists():
                return Path(prefix), version
    return leave_out("containers: no Python that can make virtual environments")


def run_private(script: str, *, env: dict[str, str] | None = None, seconds: float = 300) -> tuple[int, str]:
    """Run a shell script in a mount and pid namespace of its own; exit code and output. Whatever it mounted is gone."""
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "sh", "-euc", script],
        env=env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=seconds, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout
