"""The pytest plugin: labs in tests (docs/pytest.md).

pytest imports this file wherever the testbed is installed: what else it needs of the testbed, it imports when a test
asks for a lab.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import secrets
import shutil
import signal
from collections.abc import Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from testbed.backends import Choice
    from testbed.results import Run
    from testbed.topology import Topology

ARTEFACTS = "testbed-artefacts"  # below rootdir: the run folders of tests that failed
_LONGEST = 120  # characters of a test's folder

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the session."""
    group = parser.getgroup("testbed", "labs in tests")
    group.addoption(
        "--testbed-backend",
        metavar="NAME",
        help="The backend of all labs that do not ask for one themselves: docker, local or sim.",
    )
    group.addoption(
        "--testbed-keep",
        action="store_true",
        help=f"Keep the run folders of tests that passed, too, in {ARTEFACTS}/.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", 'testbed(backend="local"): the backend that labs of this test run on')


@pytest.fixture
def testbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Testbed:
    """Labs for this test: `testbed.run("two-hosts.yaml")`.

    The run folders of a test that fails are moved to `testbed-artefacts/TEST/` and named in its report; those of
    others are removed.
    """
    node: pytest.Item = request.node
    made = Testbed(node, tmp_path_factory.mktemp("testbed"))
    node.stash[_TESTBED] = made
    return made


class Testbed:
    """What the fixture is: it runs labs, and looks after their run folders."""

    __test__ = False  # its name begins with Test, and pytest would collect it where a test imports it

    def __init__(self, item: pytest.Item, directory: Path) -> None:
        self._item = item
        self._directory = directory  # of run folders, until the test has failed or passed
        self._artefacts = item.config.rootpath / ARTEFACTS / _file_safe(item.nodeid)
        self._runs: dict[Path, Run] = {}  # where its folder goes if the test fails -> run
        self._failed = False
        shutil.rmtree(self._artefacts, ignore_errors=True)  # of the last time: this time may pass

    def run(
        self,
        topology: str | Path,
        *,
        seed: int | None = None,
        backend: str | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Run:
        """Run a lab to its end, as `testbed run` does, and return what came of it, whether it passed or not.

        A relative `topology` is looked for beside the test's file, in pytest's rootdir, in its `topologies/`, and in
        the working directory. `seed` stands in place of the topology's; `backend` in place of the marker's and of the
        option's; `variables` are for its `${NAME}`s. Fails the test if the topology is faulty or the lab can't be
        built; skips it if no backend works here, and none was asked for.
        """
        __tracebackhide__ = True
        from testbed.topology import TopologyError, load

        file = self._find(Path(topology))
        try:
            loaded = load(file, variables)
        except TopologyError as error:
            raise _failure(str(error)) from None
        if seed is not None:
            loaded = loaded.model_copy(update={"seed": seed})
        choice = self._choose(backend)
        print(f"testbed: {file} on {choice.backend.name} ({choice.why}), seed {loaded.seed}")
        run = self._run(loaded, file, choice)
        self._runs[self._artefacts / f"{len(self._runs) + 1}-{loaded.name}"] = run
        return run

    def _find(self, topology: Path) -> Path:
        root = self._item.config.rootpath
        places = dict.fromkeys((self._item.path.parent, root, root / "topologies", Path.cwd()))
        for place in places:
            if (place / topology).is_file():  # what is absolute stays so
                return place / topology
        raise _failure(f"there is no topology {topology} in {', '.join(map(str, places))}")

    def _choose(self, backend: str | None) -> Choice:
        from testbed.backends import UnknownBackend, choose
        from testbed.unavailable import Unavailable

        mark = self._item.get_closest_marker("testbed")
        marked = _marked(*mark.args, **mark.kwargs) if mark is not None else None
        wanted = backend or marked or self._item.config.getoption("testbed_backend")
        try:
            return choose(wanted)
        except UnknownBackend as error:
            raise _failure(f"{error}.") from None
        except Unavailable as unavailable:
            if wanted is not None:
                raise _failure(f"backend {wanted}: {unavailable} {unavailable.remedy}") from None
            pytest.skip(f"no lab can run here: {unavailable} {unavailable.remedy}")

    def _run(self, topology: Topology, file: Path, choice: Choice) -> Run:
        from testbed import run as core
        from testbed.results import Run
        from testbed.signals import Interrupted
        from testbed.unavailable import Unavailable

        name = _lab_name()
        try:
            outcome = core.run(topology, file, choice, name=name, runs=self._directory, report=print)
        except Unavailable as unavailable:  # not of the machine as such: that was asked before
            raise _failure(f"{file}: {unavailable} {unavailable.remedy}") from None
        except Interrupted as interrupted:
            _end_session(interrupted.number)
        except BaseException:
            choice.backend.down(name, print)  # a time-out of pytest-timeout's is raised in the middle of anything
            raise
        if outcome.interrupted is not None:
            _end_session(outcome.interrupted - 128)
        return Run(outcome)

    def ended(self, report: pytest.TestReport) -> None:
        """A phase of the test is over: move the run folders, or remove them, and tell the report of them."""
        self._failed = self._failed or report.failed
        over = report.when == "teardown"
        if self._failed or (over and self._item.config.getoption("testbed_keep")):
            self._keep()
        elif over:
            shutil.rmtree(self._directory, ignore_errors=True)
        if report.failed:
            report.sections += [("testbed", "\n".join(run.explain())) for run in self._runs.values()]

    def _keep(self) -> None:
        for kept, run in self._runs.items():
            if run.folder != kept:
                with suppress(OSError):  # then it stays where it is, and the report says where that is
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    run.folder = Path(shutil.move(run.folder, kept))


def _marked(backend: str | None = None) -> str | None:
    """The backend that the marker asks for; it takes nothing else."""
    return backend


def _lab_name() -> str:
    """A name that no other lab has: not of another worker, and not on an engine that other machines use, too."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    parts = ("pytest", re.sub("[^a-z0-9]", "", worker.lower())[:8], os.getpid(), secrets.token_hex(2), next(_numbers))
    return "-".join(str(part) for part in parts if part)


def _file_safe(nodeid: str) -> str:
    """A name for a folder; with a digest where two tests could have the same."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", nodeid).strip("-")
    if "[" not in nodeid and len(safe) <= _LONGEST:
        return safe
    return f"{safe[:_LONGEST]}-{hashlib.sha256(nodeid.encode()).hexdigest()[:8]}"


def _failure(message: str) -> BaseException:
    """The message says it all: neither our frames nor the test's would add to it."""
    return pytest.fail.Exception(message, pytrace=False)


def _end_session(number: int) -> NoReturn:
    """The signal was for pytest: the lab had to be taken down first."""
    pytest.exit(f"interrupted by {signal.Signals(number).name}", returncode=pytest.ExitCode.INTERRUPTED)


_TESTBED = pytest.StashKey[Testbed]()


@pytest.hookimpl(wrapper=True, tryfirst=True)  # after all others: an expected failure is none
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the test's run folders follow its outcome."""
    report = yield
    if (own := item.stash.get(_TESTBED, None)) is not None:
        own.ended(report)
    return report
