"""Services are released one by one: two versions of the SDK, each in an environment of its own, share one system."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import psutil

from fleet import REPOSITORY, fleet, write_mesh
from measured import say
from polling import poll_until

NEXT = "0.99.0"
SALES = REPOSITORY / "services" / "sales"


def released(folder: Path) -> Path:
    """Another release of the SDK: the same sources under another version."""
    shutil.copytree(REPOSITORY / "sdk" / "atoll", folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    project = folder / "pyproject.toml"
    text, count = re.subn(r'(?m)^version = ".*"$', f'version = "{NEXT}"', project.read_text())
    assert count == 1
    project.write_text(text)
    return folder


def environment(folder: Path, sdk: Path) -> Path:
    """An environment for sales with that SDK; its Python."""
    uv = shutil.which("uv") or str(REPOSITORY / ".atoll" / "tools" / "uv" / "bin" / "uv")
    python = folder / "bin" / "python"

    def run(*words: str) -> None:
        done = subprocess.run([uv, *words], cwd=SALES, text=True, capture_output=True, timeout=300, check=False)
        assert done.returncode == 0, f"uv {' '.join(words)}:\n{done.stderr}"

    run("venv", "--quiet", str(folder))
    run("pip", "sync", "--quiet", "--python", str(python), "pins.txt")
    local = (f"{sdk}[web]", str(REPOSITORY / "sdk" / "atoll-token"), ".")
    run("pip", "install", "--quiet", "--no-deps", "--python", str(python), *local)
    return python


def sdk_version(python: str) -> str:
    """Which SDK a Python has."""
    asked = "import importlib.metadata; print(importlib.metadata.version('atoll'))"
    return subprocess.run([python, "-c", asked], text=True, capture_output=True, check=True).stdout.strip()


def test_two_versions_of_the_sdk_run_side_by_side(state: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "environment", released(tmp_path / "sdk"))
    mesh = write_mesh(tmp_path / "mesh.toml", changes={
        'path = "services/sales"': f'path = "services/sales"\ncommand = ["{python}", "-m", "atoll_sales"]'
    })  # fmt: skip
    with fleet(state, mesh) as shop:
        versions = {name: sdk_version(psutil.Process(shop.pid(name)).cmdline()[0]) for name in ("orders", "sales")}
        say(f"SDK versions side by side: {versions}")
        assert versions["sales"] == NEXT != versions["orders"]
        shop.wait_order(shop.place("two-versions"), "confirmed")
        poll_until("sales to count it", lambda: shop.call("GET", "/sales?by=day").body["total"]["orders"], seconds=10)
