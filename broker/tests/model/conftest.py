"""What the model's tests report, shown whether or not they pass."""

from __future__ import annotations

import pytest

from .reporting import lines


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in lines():
        terminalreporter.write_line(line)
