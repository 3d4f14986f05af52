"""Fixtures: the model, and the images, built once for all tests of a run."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import images
import namespaces
import reading
import rules
from images import Builder, Image


@pytest.fixture(scope="session")
def whole() -> dict[str, Any]:
    """compose.yaml as compose reads it; nobody changes it."""
    return reading.compose(reading.COMPOSE)


@pytest.fixture
def model(whole: dict[str, Any]) -> dict[str, Any]:
    """A copy of the model, to change."""
    return copy.deepcopy(whole)


@pytest.fixture(scope="session")
def builder() -> Iterator[Builder]:
    """Builds images in a folder that is removed afterwards."""
    namespaces.need()
    folder = Path(tempfile.mkdtemp(prefix="atoll-images-"))
    try:
        yield Builder(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def built(builder: Builder, whole: dict[str, Any]) -> dict[str, Image]:
    """Every image that compose.yaml builds, by service."""
    services = {name: one for name, one in whole["services"].items() if "build" in one}
    assert set(rules.parts(whole)) < set(services)
    return {name: images.of_service(builder, name, one) for name, one in services.items()}
