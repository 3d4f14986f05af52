"""Images, built by carrying out their Dockerfiles: RUN lines run as they are written, in a root directory of their own.

A layer is a directory; a state of an image is a list of them, and is looked at through an overlay file system. A step's
layer is known by what goes into it (its text, the layers below, the content that it copies), as an engine does, so the
stages that all Dockerfiles share are built once. What stands for the base image is said in namespaces.Base.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import namespaces
import reading

#: Of the caller's environment a build sees these, as an engine passes a proxy on: where packages come from.
_PASSED = ("PIP_", "UV_", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_STEP_SECONDS_MAX = 300


class BuildFailed(AssertionError):  # noqa: N818 - a test's failure, with the step and what it said
    """A step failed."""


@dataclass(frozen=True)
class Image:
    """What a Dockerfile came to: its layers (lowest first) and what a container of it starts with."""

    name: str
    layers: tuple[Path, ...]
    env: dict[str, str]
    workdir: str
    user: str
    command: list[str]
    health: list[str]
    ports: list[str]


@dataclass
class _Stage:
    layers: list[Path]
    key: str
    workdir: str = "/"
    user: str = ""
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)


class Builder:
    """Builds images below a folder; layers are kept as long as it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = namespaces.Base(folder / "base")
        self.seconds: dict[str, float] = {}
        self._layers: dict[str, Path] = {}
        self._cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atoll" / "images"
        ldconfig, said = self.run_in_layers([self.base.root], folder / "base-cache", "ldconfig", {}, [])
        assert ldconfig == 0, said
        self._base_layers = [self.base.root, folder / "base-cache"]

    def build(self, name: str, build: dict[str, Any]) -> Image:
        """Build what a compose `build` says. Raises BuildFailed with the step and its output."""
        context = Path(build["context"])
        contexts = {key: Path(path) for key, path in build.get("additional_contexts", {}).items()}
        stages: dict[str, _Stage] = {}
        last = _Stage([], "")
        told: dict[str, Any] = {}
        for told in reading.dockerfile(context / build["dockerfile"]):
            last = self._build_stage(name, told, stages, context, contexts)
            stages[told["Name"] or str(len(stages))] = last
        return Image(
            name, tuple(last.layers), told["Env"], last.workdir, last.user, last.command, last.health, last.ports
        )  # fmt: skip

    def _build_stage(
        self, name: str, told: dict[str, Any], before: dict[str, _Stage], context: Path, contexts: dict[str, Path]
    ) -> _Stage:
        if told["Base"] in before:
            below = before[told["Base"]]
            stage = _Stage(list(below.layers), below.key, below.workdir, below.user)
        else:
            stage = _Stage(list(self._base_layers), told["Base"])
        for step in told["Steps"] or []:
            match step["Kind"]:
                case "RUN":
                    self._run(name, stage, step)
                case "COPY":
                    source = before[step["From"]] if step.get("From") in before else None
                    folder = contexts.get(step.get("From", ""), context)
                    if step.get("From") and source is None and step["From"] not in contexts:
                        raise BuildFailed(f"{name}: {step['Text']}: there is no stage or context {step['From']!r}")
                    self._copy(name, stage, step, source, folder)
                case "WORKDIR":
                    stage.workdir = str(PurePosixPath(stage.workdir) / step["Target"])
                    self._make(stage, stage.workdir)
                case "USER":
                    stage.user = step["Target"]
                case "CMD":
                    stage.command = step["Command"]
                case "HEALTHCHECK":
                    stage.health = step["Command"]
                case "EXPOSE":
                    stage.ports = step["Ports"]
                case "ENV":
                    pass  # the parser put it into each step's environment
                case other:
                    raise BuildFailed(f"{name}: {step['Text']}: nobody taught this builder {other}")
        return stage

    # ---- steps -----------------------------------------------------------------------------------------------

    def _run(self, name: str, stage: _Stage, step: dict[str, Any]) -> None:
        key = _key(stage.key, stage.workdir, stage.user, json.dumps(step, sort_keys=True))
        if key not in self._layers:
            layer, began = self._new_layer(key), time.monotonic()
            command = step["Command"][0] if step["Shell"] else shlex.join(step["Command"])
            env = step["Env"] | {k: v for k, v in os.environ.items() if k.upper().startswith(_PASSED)}
            code, said = self.run_in_layers(stage.layers, layer, command, env, step.get("Caches", []), stage.workdir)
            if code != 0:
                raise BuildFailed(f"{name}: {step['Text']}\nexited {code}:\n{said[-4000:]}")
            self.seconds[step["Text"]] = time.monotonic() - began
            self._layers[key] = layer
        stage.layers.append(self._layers[key])
        stage.key = key

    def _copy(self, name: str, stage: _Stage, step: dict[str, Any], source: _Stage | None, folder: Path) -> None:
        target = step["Target"] if step["Target"].startswith("/") else f"{stage.workdir}/{step['Target']}"
        content = source.key if source is not None else _content(folder, step["Sources"], name)
        key = _key(stage.key, target, json.dumps(step, sort_keys=True), content)
        if key not in self._layers:
            layer = self._new_layer(key)
            if source is not None:
                self._copy_stage(source, step["Sources"], layer, target)
            else:
                _copy_context(folder, step["Sources"], layer, target)
            self._layers[key] = layer
        stage.layers.append(self._layers[key])
        stage.key = key

    def _copy_stage(self, source: _Stage, paths: list[str], layer: Path, target: str) -> None:
        """Out of another stage: its overlay is looked at from a mount namespace, and copied with owners and modes."""
        assert len(paths) == 1, paths
        into = layer / target.lstrip("/")
        into.parent.mkdir(parents=True, exist_ok=True)
        view = self.scratch()
        script = [
            _overlay(source.layers, view / "upper", view / "work", view / "merged"),
            f"cp -a {view}/merged{paths[0]} {shlex.quote(str(into))}",
        ]
        code, said = namespaces.run_private("\n".join(script))
        assert code == 0, said

    def _make(self, stage: _Stage, path: str) -> None:
        key = _key(stage.key, "mkdir", path)
        if key not in self._layers:
            layer = self._new_layer(key)
            (layer / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
            self._layers[key] = layer
        stage.layers.append(self._layers[key])
        stage.key = key

    def run_in_layers(
        self, layers: Sequence[Path], upper: Path, command: str, env: dict[str, str], caches: list[str],
        workdir: str = "/",
    ) -> tuple[int, str]:  # fmt: skip
        """A command as root in a root directory made of layers; what it changes goes into `upper`."""
        upper.mkdir(exist_ok=True)
        view = self.scratch()
        merged = view / "merged"
        script = [_overlay(layers, upper, view / "work", merged), *self.base.mounts(str(merged))]
        script += [f"mount -t proc proc {merged}/proc", f"mount --rbind /dev {merged}/dev"]
        for index, target in enumerate(caches):
            kept = self._cache / str(index)
            kept.mkdir(parents=True, exist_ok=True)
            script += [f"mkdir -p {merged}{target}", f"mount --bind {kept} {merged}{target}"]
        script.append(f"mount -t tmpfs tmpfs {merged}/tmp")
        script.append(f"exec chroot {merged} /bin/sh -ec {shlex.quote(f'cd {workdir}; {command}')}")
        told = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"} | env
        return namespaces.run_private("\n".join(script), env=told, seconds=_STEP_SECONDS_MAX)

    def _new_layer(self, key: str) -> Path:
        layer = self.folder / "layers" / key[:16]
        shutil.rmtree(layer, ignore_errors=True)
        layer.mkdir(parents=True)
        return layer

    def scratch(self) -> Path:
        """A folder to look at layers in."""
        view = self.folder / "views" / str(time.monotonic_ns())
        for name in ("upper", "work", "merged"):
            (view / name).mkdir(parents=True)
        return view


def _overlay(layers: Sequence[Path], upper: Path, work: Path, merged: Path) -> str:
    """The shell line that mounts layers (lowest first) with `upper` on top."""
    lower = ":".join(map(str, reversed(layers)))
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    return f"mount -t overlay overlay -o {shlex.quote(options)} {merged}"


def _key(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def chosen(folder: Path, sources: list[str]) -> dict[str, str]:
    """File -> where it goes below the target, for COPY out of a context. What .dockerignore hides is not there."""
    known, found = reading.context(folder), {}
    for source in sources:
        name = str(PurePosixPath(source))
        for path in known:
            if path == name:
                found[path] = PurePosixPath(path).name
            elif name == "." or path.startswith(name + "/"):
                found[path] = path if name == "." else path[len(name) + 1 :]
    return found


def _content(folder: Path, sources: list[str], name: str) -> str:
    files = chosen(folder, sources)
    if not files:
        raise BuildFailed(f"{name}: COPY {' '.join(sources)}: the context {folder} has none of it")
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.encode() + b"\0" + (folder / path).read_bytes() + b"\0")
    return digest.hexdigest()


def _copy_context(folder: Path, sources: list[str], layer: Path, target: str) -> None:
    files = chosen(folder, sources)
    single = len(sources) == 1 and list(files) == [str(PurePosixPath(sources[0]))]
    for path, goes in files.items():
        whole = target.endswith("/") or not single
        into = layer / (f"{target}/{goes}" if whole else target).lstrip("/")
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / path, into)  # root's, as an engine copies
        into.chmod((folder / path).stat().st_mode & 0o777 | 0o444)


def of_service(builder: Builder, name: str, service: dict[str, Any]) -> Image:
    """The image of a compose service. Raises BuildFailed."""
    return builder.build(name, service["build"])


def looked_at(image: Image, path: str, builder: Builder) -> list[str]:
    """`ls -ln` of a path in an image."""
    code, said = run_in(image, f"ls -lnd {path}", builder)
    assert code == 0, said
    return said.split()


def find(image: Image, test: str, builder: Builder, where: str) -> list[str]:
    """`find` in what the image has above the machine's own /usr, /proc and /dev; sorted paths."""
    skip = "-path /proc -o -path /dev -o -path /usr -o -path /tmp"
    code, said = run_in(image, f"find {where} \\( {skip} \\) -prune -o \\( {test} \\) -print", builder)
    assert code == 0, said
    return sorted(said.splitlines())


def run_in(image: Image, command: str, builder: Builder) -> tuple[int, str]:
    """A command as root in a throw-away container of an image; exit code and output."""
    return builder.run_in_layers(image.layers, builder.scratch() / "upper", command, {}, [])


def size_mb(image: Image) -> int:
    """What an image's own layers take, in MiB."""
    sizes = subprocess.run(["du", "-sm", *map(str, image.layers[2:])], capture_output=True, text=True, check=True)
    return sum(int(line.split()[0]) for line in sizes.stdout.splitlines())
