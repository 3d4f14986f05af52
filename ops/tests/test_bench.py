"""`./atoll bench`: what there is, where it runs, and that nothing stands between it and the terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from atoll_ops import suites
from atoll_ops.environments import Environment, Workshop
from atoll_ops.errors import OperationError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one measurement and one helper of it."""
    (tmp_path / "bench").mkdir()
    for name in ("bus.py", "_report.py"):
        (tmp_path / "bench" / name).write_text("")
    return tmp_path


def test_without_a_name_they_are_listed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert suites.bench(root, None, []) == 0
    assert capsys.readouterr().out.split() == ["bench", "bus"]


def test_an_unknown_name_is_told_the_known_ones(root: Path) -> None:
    with pytest.raises(OperationError, match=r"no 'buss' \(there are: bus\)"):
        suites.bench(root, "buss", [])


def test_it_becomes_the_measurement_in_its_own_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    became: list[Sequence[str]] = []

    def sync(_: Workshop, wanted: Sequence[Environment], report: object) -> None:
        synced.extend(environment.name for environment in wanted)

    monkeypatch.setattr(Workshop, "sync", sync)
    monkeypatch.setattr(os, "execv", lambda path, command: became.append([path, *command[1:]]))
    suites.bench(root, "bus", ["--runs", "1"])
    assert synced == ["bench", "gateway"]
    python = str(root / ".atoll" / "env" / "bench" / "bin" / "python")
    assert became == [[python, str(root / "bench" / "bus.py"), "--runs", "1"]]
