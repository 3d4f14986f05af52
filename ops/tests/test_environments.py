"""Environments: what makes one stale, and what is said when it cannot be made."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from atoll_ops import environments
from atoll_ops.environments import Environment, Workshop
from atoll_ops.errors import EnvironmentFailedError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one project that installs a local SDK."""
    for name in ("service", "sdk"):
        (tmp_path / name / "src" / name).mkdir(parents=True)
        (tmp_path / name / "src" / name / "__init__.py").write_text("x = 1\n")
        (tmp_path / name / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
    (tmp_path / "service" / "pins.txt").write_text("")
    (tmp_path / "service" / "local.txt").write_text("../sdk[extra]\n.\n")
    return tmp_path


def _fake_uv(root: Path, sync: str) -> str:
    """A uv whose `venv` makes a python and whose `pip sync` is the shell code given."""
    uv = root / "uv"
    uv.write_text(
        '#!/bin/sh\ncase "$1" in\n'
        '  --version) echo "uv 99.0.0" ;;\n'
        '  venv) eval home=\\"\\${$#}\\"; mkdir -p "$home/bin" && cp /bin/sh "$home/bin/python" ;;\n'
        f"  pip) {sync} ;;\nesac\n"
    )
    uv.chmod(uv.stat().st_mode | stat.S_IXUSR)
    return str(uv)


def _sync(root: Path, monkeypatch: pytest.MonkeyPatch, sync: str) -> list[tuple[str, str]]:
    uv = _fake_uv(root, sync)
    monkeypatch.setattr(environments, "find_uv", lambda *_: uv)
    said: list[tuple[str, str]] = []
    Workshop(root).sync([Environment.of(root / "service")], lambda *words: said.append(words))
    return said


def test_an_unchanged_environment_is_not_touched(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [name for name, _ in _sync(root, monkeypatch, "true")] == ["service", "service"]
    assert _sync(root, monkeypatch, "false") == []


@pytest.mark.parametrize("changed", ["sdk/src/sdk/__init__.py", "service/src/service/__init__.py", "service/pins.txt"])
def test_any_input_makes_it_stale(root: Path, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    _sync(root, monkeypatch, "true")
    (root / changed).write_text("# changed\n")
    assert len(Workshop(root).stale([Environment.of(root / "service")])) == 1


def test_both_requirement_files_are_always_given_together(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _sync(root, monkeypatch, f'echo "$PWD $@" > {root}/called')
    called = (root / "called").read_text().split()
    assert called[0] == str(root / "service")
    assert called[-2:] == ["pins.txt", "local.txt"]
    assert "--require-hashes" not in called


def test_a_failed_installation_leaves_no_stamp_and_says_why(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentFailedError, match=r"environment service: Hash mismatch for thing==1 .*service\.log"):
        _sync(root, monkeypatch, "echo '  × Hash mismatch for thing==1' >&2; exit 1")
    assert len(Workshop(root).stale([Environment.of(root / "service")])) == 1


def test_no_registry_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentFailedError, match="registry cannot be reached") as failed:
        _sync(root, monkeypatch, "echo 'error sending request for url: dns error' >&2; exit 2")
    assert "\n" not in str(failed.value)


def test_an_old_uv_on_the_path_is_not_taken(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = root / "bin"
    old.mkdir()
    (old / "uv").write_text("#!/bin/sh\necho uv 0.4.30\n")
    (old / "uv").chmod(0o755)
    private = root / ".atoll" / "tools" / "uv" / "bin"
    private.mkdir(parents=True)
    (private / "uv").write_text("#!/bin/sh\necho uv 99.0.0\n")
    (private / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{old}{os.pathsep}/usr/bin:/bin")
    assert environments.find_uv(root, lambda *_: None) == str(private / "uv")


def test_without_ensurepip_the_apt_line_is_said_and_nothing_half_made_left(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(environments, "_has_ensurepip", lambda: False)
    with pytest.raises(EnvironmentFailedError, match="apt install python3"):
        environments.find_uv(root, lambda *_: None)
    assert not (root / ".atoll" / "tools" / "uv").exists()
