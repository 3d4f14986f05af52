"""Every Dockerfile: read by BuildKit's parser, of one shape, from a small context; and its steps carried out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import images
import measured
import reading
import rules
import topology
from images import Builder, BuildFailed, Image

pytest_plugins = ["container_fixtures"]
FOLDERS = sorted({str(part["path"]) for part in rules.mesh().values()})
CONTEXTS = [*FOLDERS, *topology.SDKS.values()]
CONTEXT_BYTES_MAX = 2_000_000
_DIVIDED = re.compile(r"^# ---- .*$", re.MULTILINE)


def _stages(folder: str) -> list[dict[str, Any]]:
    return reading.dockerfile(reading.REPOSITORY / folder / "Dockerfile")


# ---- as they are written -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_dockerfile_ends_as_every_part_does(folder: str) -> None:
    name = next(name for name, part in rules.mesh().items() if part["path"] == folder)
    port = topology.PUBLISHED.get(name, topology.CONTAINER_PORT)
    last = {step["Kind"]: step for step in _stages(folder)[-1]["Steps"]}
    assert last["USER"]["Target"] == rules.USER
    assert last["CMD"]["Command"] == ["atoll", "agent", "--part", name]
    assert not last["CMD"].get("Shell"), "a shell as PID 1 would swallow SIGTERM"
    assert last["HEALTHCHECK"]["Command"] == ["/agent/bin/python", "-m", "atoll_ops.probe", str(port)]
    assert str(port) in last["EXPOSE"]["Ports"]
    assert last["WORKDIR"]["Target"] == "/service"
    copied = {source for step in _stages(folder)[-1]["Steps"] if step["Kind"] == "COPY" for source in step["Sources"]}
    wanted = {name for name in ("contract", "migrations") if (reading.REPOSITORY / folder / name).is_dir()}
    assert wanted <= copied, f"{folder}: the image lacks {wanted - copied}, which the part reads where it starts"


def test_the_agents_stages_are_the_same_in_every_dockerfile() -> None:
    """So that an engine builds and keeps them once: a layer is known by its text and what it copies."""
    heads = {
        folder: _DIVIDED.split((reading.REPOSITORY / folder / "Dockerfile").read_text())[0].splitlines()[3:]
        for folder in FOLDERS
    }
    first = next(iter(heads.values()))
    assert [folder for folder, head in heads.items() if head != first] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_everything_from_outside_is_pinned_by_hash(folder: str) -> None:
    for stage in _stages(folder):
        assert stage["Base"] == "python:3.13-slim" or stage["Base"] in ("tools", "base"), stage["Base"]
        for step in stage["Steps"]:
            for command in (step.get("Command") or []) if step["Kind"] == "RUN" else []:
                for install in re.findall(r"pip install [^&;]*", command):
                    assert "--require-hashes" in install or "--offline --no-deps" in install, f"{folder}: {install}"
                assert not re.search(r"curl|wget|apt-get|git clone", command), f"{folder}: {command}"


@pytest.mark.parametrize("folder", CONTEXTS)
def test_a_build_context_is_small_and_free_of_what_no_image_needs(folder: str) -> None:
    root = reading.REPOSITORY / folder
    files = reading.context(root)
    assert any(path.startswith("src/") for path in files)
    wrong = [path for path in files if re.search(r"(^|/)(tests?|__pycache__|\.[^/]+|uv\.lock)(/|$)|\.pyc$", path)]
    assert not wrong, f"{folder}: .dockerignore lets through {wrong[:5]}"
    total = sum((root / path).stat().st_size for path in files)
    assert total < CONTEXT_BYTES_MAX, f"{folder}: {total} bytes"


def test_a_context_is_read_by_buildkits_rules(tmp_path: Path) -> None:
    (tmp_path / "src" / "__pycache__").mkdir(parents=True)
    for name in ("src/a.py", "src/__pycache__/a.pyc", "secret.key", ".env"):
        (tmp_path / name).touch()
    assert len(reading.context(tmp_path)) == 4, "without .dockerignore everything goes"
    (tmp_path / ".dockerignore").write_text("*\n!src\n**/__pycache__\n")
    assert reading.context(tmp_path) == ["src/a.py"]


def test_the_parser_refuses_what_buildkit_refuses(tmp_path: Path) -> None:
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM python:3.13-slim\nCOPPY . .\n")
    with pytest.raises(reading.Unreadable, match=r"(?i)unknown instruction.*COPPY"):
        reading.dockerfile(wrong)


# ---- carried out -------------------------------------------------------------------------------------------------


def test_every_image_is_built(built: dict[str, Image], builder: Builder) -> None:
    sizes = {name: images.size_mb(image) for name, image in sorted(built.items())}
    slowest = max(builder.seconds.values())
    measured.say(
        f"{len(built)} images built by their Dockerfiles' own RUN lines on Python {builder.base.version}: "
        f"{sum(builder.seconds.values()):.0f} s, the slowest step {slowest:.0f} s; "
        f"{min(sizes.values())} to {max(sizes.values())} MiB above the base image"
    )
    for name, image in built.items():
        assert images.looked_at(image, "/atoll/data", builder)[0:4:2] == ["drwx------", "10001"], name


def test_a_part_can_write_nothing_of_its_image_but_what_volumes_cover(
    built: dict[str, Image], builder: Builder
) -> None:
    places = "/agent /env /service /atoll /etc"
    found = images.find(built["orders"], "-user 10001 -o -perm -0002 ! -type l", builder, places)
    assert found == ["/atoll/data", "/atoll/run"]


def test_an_image_holds_no_tests_no_sources_and_no_build_tools(built: dict[str, Image], builder: Builder) -> None:
    test = "-name tests -path '*/atoll*' -o -name uv -type f -o -path '/build/*'"
    found = images.find(built["orders"], test, builder, "/")
    assert found == []


def test_the_agent_shares_no_library_with_the_part(built: dict[str, Image], builder: Builder) -> None:
    """Else an SDK of another version in one would be the other's."""
    code = "import atoll, sys; print(sys.prefix, atoll.__file__)"
    for python, prefix in (("/agent/bin/python", "/agent"), ("/env/bin/python", "/env")):
        code_, said = images.run_in(built["orders"], f'{python} -c "{code}"', builder)
        assert code_ == 0, said
        assert said.split()[0] == prefix
        assert said.split()[1].startswith(prefix)


# ---- the control cases -------------------------------------------------------------------------------------------


def _project(folder: Path, dockerfile: str, **files: str) -> dict[str, Any]:
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM python:3.13-slim\n" + dockerfile)
    for name, text in files.items():
        (folder / name).write_text(text)
    return {"context": str(folder), "dockerfile": "Dockerfile"}


@pytest.mark.parametrize(
    ("dockerfile", "said"),
    [
        ("RUN echo out of order && exit 3", "exited 3"),
        ("COPY nothing.txt .", "has none of it"),
        ("COPY --from=elsewhere a .", "no stage or context 'elsewhere'"),
        # Nothing of this machine is seen.
        (f"RUN test -e {reading.REPOSITORY} || test -e {Path.home()}/.profile || exit 9", "exited 9"),
        ("RUN touch /usr/bin/planted", "Read-only file system"),
    ],
)
def test_a_step_that_fails_fails_the_build(dockerfile: str, said: str, builder: Builder, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=said):
        builder.build("planted", _project(tmp_path / "planted", dockerfile))


def test_pins_without_their_hash_are_refused(builder: Builder, tmp_path: Path) -> None:
    line = (reading.REPOSITORY / "ops" / "pins.txt").read_text().split()[0]
    steps = (
        "COPY pins.txt /build/\nRUN python -m venv /build/env && "
        "/build/env/bin/pip install --require-hashes -r /build/pins.txt"
    )
    with pytest.raises(BuildFailed, match="hashes"):
        builder.build("planted", _project(tmp_path / "planted", steps, **{"pins.txt": f"{line}\n"}))


def test_layers_are_shared_by_what_goes_into_them(builder: Builder, tmp_path: Path) -> None:
    steps = "COPY a /a\nRUN cp /a /b\n"
    first = builder.build("one", _project(tmp_path / "one", steps, a="x"))
    same = builder.build("two", _project(tmp_path / "two", steps, a="x"))
    other = builder.build("three", _project(tmp_path / "three", steps, a="y"))
    assert first.layers == same.layers
    assert set(first.layers) & set(other.layers) == set(first.layers[:2]), "only the base image is the same"


def test_building_leaves_nothing_mounted(built: dict[str, Image], builder: Builder) -> None:
    assert built
    mounted = Path("/proc/self/mounts").read_text()
    assert str(builder.folder) not in mounted
