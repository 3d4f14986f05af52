"""`test` and `bench`: every suite in its own environment, one line each, one sum at the end.

The light ones (lint, types, each project's tests) run two at a time; those that span parts start whole systems and
measure time, so they run alone, one after the other. Jaeger, which some of them need, is brought meanwhile. The last
line is `N passed, N failed` and nothing else (with `, N skipped` where there are any): a lint step counts as one test.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from atoll_ops import console
from atoll_ops.environments import Environment, Workshop
from atoll_ops.errors import OperationError
from atoll_ops.jaeger.errand import Errand
from atoll_ops.jaeger.foreground import FOLDER

PARALLEL_MAX = 2
#: Begins a line that a suite wants repeated although it passed: a time beside its promise, a seed.
MARK = "» "
SUITE_SECONDS_MAX = 3600.0
_ENDING_SECONDS = 30.0  # a suite that is interrupted takes its systems down first
_LOOK_EVERY_SECONDS = 0.05
#: Suites that start no process: they need no Jaeger, and measure nothing.
_OF_PAPER = ("architecture", "contract")
#: Suites of one project that ask the real Jaeger something: they wait until it is there.
_OF_JAEGER = ("tests dashboard",)
_PROJECT_PARENTS = (".", "sdk", "services")


@dataclass
class Count:
    """Tests by outcome."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: Count) -> None:
        """Add another count to this one."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


@dataclass(frozen=True)
class Suite:
    """One command to run. With `junit`, its tests are counted from that file; without, it is one test itself."""

    title: str
    command: tuple[str, ...]
    folder: Path
    junit: Path | None = None
    variables: dict[str, str] = field(default_factory=dict)


def run(root: Path, arguments: list[str], results: Path) -> int:
    """All suites, or with arguments for pytest the project or tests that they name. The exit code.

    `results` is the folder for their logs and counts.
    """
    _let_suites_be_interrupted()
    plan = _Plan(root, results)
    plan.results.mkdir(parents=True, exist_ok=True)
    if arguments:
        return _run_named(plan, arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):  # a job that is cancelled, a terminal that is closed: as Ctrl-C,
        signal.signal(number, signal.default_int_handler)  # or suites and a build in sessions of their own live on
    plan.workshop.sync([*plan.test_environments(), Environment.tools(root)], console.say)
    total = Count()
    with _jaeger_meanwhile(plan) as jaeger_is_here:
        light = list(plan.light())
        total.add(_run_all(plan, [suite for suite in light if suite.title not in _OF_JAEGER], PARALLEL_MAX))
        spanning = list(plan.spanning())
        total.add(_run_all(plan, [suite for suite in spanning if suite.title in _OF_PAPER], 1))
        jaeger_is_here()
        total.add(_run_all(plan, [suite for suite in light if suite.title in _OF_JAEGER], 1))
        total.add(_run_all(plan, [suite for suite in spanning if suite.title not in _OF_PAPER], 1))
    print(total, flush=True)
    return 1 if total.failed else 0


@contextmanager
def _jaeger_meanwhile(plan: _Plan) -> Iterator[Callable[[], None]]:
    """Bring Jaeger while the light suites run. Gives what waits for it: a build would spoil what the others measure.

    Where it cannot be had, the tests that need it are skipped, and say why.
    """
    if not (plan.root / FOLDER / "pins.toml").is_file():
        yield lambda: None
        return
    errand = Errand(plan.root, plan.results / "jaeger.log")
    try:
        yield lambda: console.say("jaeger", "ready" if errand.wait(console.say) else "absent: its tests are skipped")
    finally:
        errand.end()


def _let_suites_be_interrupted() -> None:
    """A script's background job ignores SIGINT, one under nohup SIGHUP, and so would every process that it starts: no
    suite could be ended, and the tests of Ctrl-C would fail. A handler, unlike the ignoring, is not inherited.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def bench(root: Path, name: str | None, arguments: list[str]) -> int:
    """Become bench/NAME.py, in the environment of bench/. Raises OperationError if there is none."""
    known = sorted(path.stem for path in (root / "bench").glob("[!_]*.py"))
    if name is None:
        console.say("bench", ", ".join(known) or "there are none yet")
        return 0
    if name not in known:
        raise OperationError(f"bench: there is no {name!r} (there are: {', '.join(known) or 'none yet'})")
    workshop = Workshop(root)
    # The gateway is measured as it is deployed, by its own pins; the broker and the SDK are among the pins of bench/.
    workshop.sync([Environment.of(root / "bench"), Environment.of(root / "gateway")], console.say)
    command = [str(workshop.python("bench")), str(root / "bench" / f"{name}.py"), *arguments]
    # It takes this process's place: Ctrl-C and the exit code are its own, and nobody is between to be orphaned.
    return os.execv(command[0], command)  # noqa: S606 - no shell is wanted


class _Plan:
    """What there is to run in this repository."""

    def __init__(self, root: Path, results: Path) -> None:
        self.root = root
        self.workshop = Workshop(root)
        self.results = results
        self.projects = [path for path in _projects(root) if (path / "tests").is_dir()]

    def test_environments(self) -> list[Environment]:
        return [*(Environment.of(project, tests=True) for project in self.projects), *self._bench()]

    def _bench(self) -> list[Environment]:
        """The measurements' environment, where there are any."""
        folder = self.root / "bench"
        return [Environment.of(folder)] if (folder / "pyproject.toml").is_file() else []

    def light(self) -> Iterator[Suite]:
        tools = self.workshop.python("tools").parent
        yield Suite("lint", (str(tools / "ruff"), "check", "."), self.root)
        if _has_import_rules(self.root):
            sources = os.pathsep.join(str(project / "src") for project in self.projects)
            yield Suite("imports", (str(tools / "lint-imports"),), self.root, variables={"PYTHONPATH": sources})
        yield self._types_of_tests(tools)
        for bench in self._bench():
            yield self._types_of_bench(bench, tools)
        for project in self.projects:
            yield self._types(project, tools)
            if any((project / "tests").rglob("test_*.py")):
                yield self.tests_of(project, ())

    def _types(self, project: Path, tools: Path) -> Suite:
        python = self.workshop.python(Environment.of(project, tests=True).name)
        command = (
            str(tools / "mypy"), "--strict", "--config-file", str(self.root / "pyproject.toml"),
            "--cache-dir", str(self.root / ".atoll" / "cache" / "mypy" / project.name),
            "--python-executable", str(python), "src", "tests",
        )  # fmt: skip
        return Suite(f"types {project.name}", command, project)

    def _types_of_tests(self, tools: Path) -> Suite:
        """What spans parts imports no product code, so it is checked against the tools' environment."""
        cache = self.root / ".atoll" / "cache" / "mypy" / "tests"
        command = (str(tools / "mypy"), "--strict", "--cache-dir", str(cache), "tests")
        return Suite("types tests", command, self.root)

    def _types_of_bench(self, bench: Environment, tools: Path) -> Suite:
        cache = self.root / ".atoll" / "cache" / "mypy" / "bench"
        python = self.workshop.python(bench.name)
        command = (str(tools / "mypy"), "--strict", "--cache-dir", str(cache), "--python-executable", str(python), ".")
        return Suite("types bench", command, self.root / "bench")

    def tests_of(self, project: Path, arguments: Sequence[str]) -> Suite:
        python = self.workshop.python(Environment.of(project, tests=True).name)
        return self._pytest(f"tests {project.name}", python, project, arguments)

    def spanning(self) -> Iterator[Suite]:
        tests = self.root / "tests"
        for folder in sorted(path for path in tests.glob("*/") if any(path.rglob("test_*.py"))):
            yield self.spanning_suite(folder.name, [str(folder.relative_to(self.root))])

    def spanning_suite(self, title: str, arguments: Sequence[str]) -> Suite:
        return self._pytest(title, self.workshop.python("tools"), self.root, arguments)

    def _pytest(self, title: str, python: Path, folder: Path, arguments: Sequence[str]) -> Suite:
        junit = self.results / f"{title.replace(' ', '-')}.xml"
        return Suite(title, (str(python), "-m", "pytest", "-q", f"--junitxml={junit}", *arguments), folder, junit)


def _projects(root: Path) -> Iterator[Path]:
    """Every folder with a project of its own."""
    for parent in _PROJECT_PARENTS:
        for path in sorted((root / parent).glob("*/pyproject.toml")):
            yield path.parent


def _has_import_rules(root: Path) -> bool:
    if (root / ".importlinter").exists():
        return True
    return "importlinter" in tomllib.loads((root / "pyproject.toml").read_text()).get("tool", {})


# ---- running -----------------------------------------------------------------------------------------------------


class _Running:
    def __init__(self, suite: Suite, results: Path) -> None:
        self.suite = suite
        self.began = time.monotonic()
        self.log = results / f"{suite.title.replace(' ', '-')}.log"
        if suite.junit is not None:
            suite.junit.unlink(missing_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                suite.command, cwd=suite.folder, env=_variables(suite), stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def over(self) -> bool:
        if self.process.poll() is not None:
            return True
        if time.monotonic() - self.began > SUITE_SECONDS_MAX:
            self.end()
        return self.process.returncode is not None

    def end(self) -> None:
        """Interrupt, so that fixtures end what they started; kill what is deaf to that."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def conclude(self) -> Count:
        """Print the suite's line, and all that it said if it failed."""
        count = counted(self.suite, self.process.returncode)
        seconds = time.monotonic() - self.began
        console.say(self.suite.title, f"{count}  {seconds:.1f} s")
        said = self.log.read_text(errors="replace")
        shown = said if count.failed else "\n".join(line for line in said.splitlines() if line.startswith(MARK))
        if shown:
            print(shown, flush=True)
        return count


def _run_all(plan: _Plan, waiting: list[Suite], parallel: int) -> Count:
    total, running = Count(), list[_Running]()
    waiting.reverse()
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                running.append(_Running(waiting.pop(), plan.results))
            for one in [one for one in running if one.over()]:
                running.remove(one)
                total.add(one.conclude())
            time.sleep(_LOOK_EVERY_SECONDS)
    finally:
        for one in running:
            one.end()
    return total


def _run_named(plan: _Plan, arguments: list[str]) -> int:
    """One pytest run with the user's arguments, its output straight to the terminal."""
    project = _project_named(plan, arguments)
    if project is not None:
        plan.workshop.sync([Environment.of(project, tests=True)], console.say)
        suite = plan.tests_of(project, [_within(project, plan.root, one) for one in arguments])
    else:
        plan.workshop.sync([Environment.tools(plan.root)], console.say)
        suite = plan.spanning_suite("tests", arguments)
    assert suite.junit is not None
    suite.junit.unlink(missing_ok=True)
    with subprocess.Popen(suite.command, cwd=suite.folder, env=_variables(suite)) as running:
        code = _attend(running)
    count = counted(suite, code)
    print(count, flush=True)
    return 1 if count.failed else 0


def _attend(running: subprocess.Popen[bytes]) -> int:
    """Wait for a run on the user's terminal, however it ends; its exit code.

    Ctrl-C comes to it from the terminal itself: told twice, it would not take down what it started. A signal that came
    to this process alone is passed on as one.
    """

    def pass_on(*_: object) -> None:
        running.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return running.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _project_named(plan: _Plan, arguments: list[str]) -> Path | None:
    for argument in arguments:
        path = (plan.root / argument.split("::")[0]).resolve()
        if argument.startswith("-") or not path.exists():
            continue
        for project in plan.projects:
            if path.is_relative_to(project.resolve()):
                return project
    return None


def _within(project: Path, root: Path, argument: str) -> str:
    """A path under the project as seen from there; anything else as it is."""
    path, colons, rest = argument.partition("::")
    absolute = (root / path).resolve()
    if argument.startswith("-") or not absolute.exists() or not absolute.is_relative_to(project.resolve()):
        return argument
    inside = absolute.relative_to(project.resolve())
    return f"{'tests' if inside == Path() else inside}{colons}{rest}"


def counted(suite: Suite, code: int) -> Count:
    """What a suite's end means in tests. A run that says it failed, but in no test, is one failure."""
    if suite.junit is None:
        return Count(passed=1) if code == 0 else Count(failed=1)
    count = _from_junit(suite.junit)
    if code != 0 and not count.failed:
        count.failed += 1
    return count


def _from_junit(path: Path) -> Count:
    try:
        suites = ElementTree.parse(path).getroot().iter("testsuite")  # noqa: S314 - pytest's own file
        keys = ("tests", "failures", "errors", "skipped")
        numbers = [{key: int(one.get(key, "0")) for key in keys} for one in suites]
    except (OSError, ElementTree.ParseError, ValueError):
        return Count()
    total = Count()
    for one in numbers:
        failed = one["failures"] + one["errors"]
        total.add(Count(max(0, one["tests"] - failed - one["skipped"]), failed, one["skipped"]))
    return total


def _variables(suite: Suite) -> dict[str, str]:
    """The environment less our own words: a test decides itself what a part is told. A seed is passed on."""
    kept = {name: value for name, value in os.environ.items() if name == "ATOLL_SEED" or not name.startswith("ATOLL_")}
    return kept | {"PYTHONDONTWRITEBYTECODE": "1"} | suite.variables
