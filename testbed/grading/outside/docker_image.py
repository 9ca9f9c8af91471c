"""Grades an image of a chitcpd: its container, and the judge's, on a network that leads nowhere else."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from posixpath import normpath
from random import Random
from secrets import token_hex
from typing import Any

from docker import APIClient
from docker.errors import APIError, ImageNotFound, NotFound
from docker.types import DriverConfig, LogConfig, Mount
from docker.utils.socket import frames_iter
from requests.exceptions import RequestException

from chitcpd import loader
from testbed.backends import engine, processes
from testbed.backends.docker_labels import (
    FOREIGN,
    KIND,
    LAB,
    MAKER,
    NAME,
    OWNER,
    RUN,
    SOCKET_DIRECTORY,
    confined,
    image,
    owner,
)
from testbed.backends.docker_things import Things
from testbed.grading.catalog import Test
from testbed.grading.diagram import short
from testbed.grading.outside.judge import event_of
from testbed.grading.outside.tests import UNSEEN, reference_of
from testbed.grading.runner import Grade, Verdict
from testbed.grading.script import Bench, Event
from testbed.signals import Signals
from testbed.unavailable import Unavailable

AT_ONCE = (32, 4, 1)  # tests: they mostly wait. Fewer of those that ran when the daemon died, to find which it was
LONGEST = 300.0  # seconds for all tests together, however often the daemon dies
MOST_DEATHS = 6  # of the daemon: then no further test is run
_SOCKET = f"{SOCKET_DIRECTORY}/chitcpd.sock"
_WAIT = ["python", "-c", f"import time; time.sleep({2 * LONGEST})"]
_JUDGE = ["python", "-s", "-P", "-m", "testbed.grading.outside.judge"]
_FOR_ANYBODY = DriverConfig("local", {"type": "tmpfs", "device": "tmpfs", "o": "mode=1777,size=16m"})
_WRITABLE = {"/tmp": "size=64m", "/run": "size=16m", "/var/log": "size=16m", "/var/tmp": "size=16m"}
_VOLUME = "size=16m"  # instead of each that the image asks for: on the engine's disk it would have no bound
_NO_GATEWAY = {"com.docker.network.bridge.inhibit_ipv4": "true"}  # else the engine's host is there, with all it serves
_LOG = LogConfig(type="json-file", config={"max-size": "4m"})
_LAST_LINES, _LONGEST_LINE = 5, 160
_NOT_PRINTABLE = re.compile("[^\x20-\x7e]")

Step = Callable[[str], None]


@dataclass(slots=True)
class _Said:
    """What a judge has told."""

    begun: list[str] = field(default_factory=list)
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    trouble: str = ""
    over: bool = False
    late: bool = False

    @property
    def unfinished(self) -> list[str]:
        return [test for test in self.begun if test not in self.ended]


def grade_image(name: str, tests: Sequence[tuple[Test, float]], *, seed: int = 1, step: Step = lambda _: None) -> Grade:
    """Grade the chitcpd in this image. Raises Unavailable."""
    result = Grade(name, seed, is_image=True)
    waiting = [test.id for test, _ in tests if test.id not in UNSEEN]
    ended: dict[str, dict[str, Any]] = {}
    suspects: list[str] = []
    narrow, deaths = 0, 0
    end = time.monotonic() + LONGEST
    with Signals() as signals:
        while waiting:
            step(f"{name}: starting it")
            with _Lab(name) as lab, signals.interruptible():
                done = _counted(step, f"{name}: ", len(ended), len(tests))
                said = lab.judge(waiting, seed, AT_ONCE[narrow], end, done)
            ended |= said.ended
            result.notes += [note for note in said.notes if note not in result.notes]
            if said.over:
                waiting, suspects, narrow = suspects, [], narrow + 1
                continue
            if said.late or not said.begun:
                result.trouble = said.trouble
                break
            deaths += 1
            if AT_ONCE[narrow] == 1:
                ended |= {test: {"message": said.trouble, "events": []} for test in said.unfinished}
            else:
                suspects += said.unfinished
            waiting = [test for test in waiting if test not in said.begun]
            if deaths >= MOST_DEATHS:
                result.trouble = f"{said.trouble}; that was the {deaths}th time"
                break
            if not waiting:
                waiting, suspects, narrow = suspects, [], narrow + 1
    result.verdicts = [_verdict(test, points, ended.get(test.id), result) for test, points in tests]
    return result


def _counted(step: Step, before: str, already: int, all_: int) -> Callable[[int], None]:
    return lambda done: step(f"{before}{already + done}/{all_}")


def _verdict(test: Test, points: float, found: dict[str, Any] | None, result: Grade) -> Verdict:
    if test.id in UNSEEN:
        return Verdict(test, 0.0, passed=False, ran=False, unseen=UNSEEN[test.id], left_out=points)
    if found is None:
        return Verdict(test, points, passed=False, message=f"not run: {result.trouble}", ran=False)
    if not found["message"]:
        return Verdict(test, points, passed=True)
    happened = tuple(map(event_of, found["events"]))
    like = [Event(0.0, "begin")] * found.get("connections", 0)
    expected = short(_reference(test, result.seed), like=like) if happened else ()
    return Verdict(test, points, passed=False, message=found["message"], happened=happened, expected=expected)


def _reference(test: Test, seed: int) -> list[Event]:
    bench = Bench(loader.load(loader.REFERENCE), Random(f"{seed} {test.id}"))
    reference_of(test)(bench)
    return bench.events


class _Lab:
    """Two containers, a network and a volume, removed at the end; `testbed gc` finds what a killed testbed leaves."""

    def __init__(self, foreign: str) -> None:
        self._foreign = foreign
        self._api: APIClient = engine.connect(4)
        self._lab = f"grade-{token_hex(4)}"

    def __enter__(self) -> _Lab:
        try:
            with engine.faults():
                self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def judge(self, tests: list[str], seed: int, at_once: int, end: float, done: Callable[[int], None]) -> _Said:
        """Let the judge do its work until `end`, a time.monotonic()."""
        said = _Said()
        theirs, ours = self._address(self._daemon), self._address(self._beside)
        if not theirs:
            said.trouble = self._how_it_ended()
            return said
        job = {"tests": tests, "seed": seed, "jobs": at_once, "socket": _SOCKET, "ours": ours, "theirs": theirs}
        with engine.faults(), self._lines(json.dumps(job), end) as lines:
            for line in lines:
                with suppress(ValueError):  # the last one, of a judge that was killed
                    self._take(json.loads(line), said)
                done(len(said.ended))
        if not said.over:
            how = self._how_it_ended()
            said.late = not how and not said.trouble
            said.trouble = how or said.trouble or f"its tests were not over after {LONGEST:g} s"
        return said

    def _take(self, line: dict[str, Any], said: _Said) -> None:
        if "begun" in line:
            said.begun.append(line["begun"])
        elif "ended" in line:
            said.ended[line["ended"]] = line
        elif "note" in line:
            said.notes.append(line["note"])
        said.trouble = line.get("trouble", said.trouble)
        said.over = said.over or "over" in line

    @contextmanager
    def _lines(self, job: str, end: float) -> Iterator[Iterator[str]]:
        execution = self._api.exec_create(self._beside, _JUDGE, stdin=True, stderr=False)["Id"]
        stream: Any = self._api.exec_start(execution, socket=True)
        late = threading.Timer(max(end - time.monotonic(), 0), lambda: self._kill(self._beside))
        late.daemon = True
        late.start()
        try:
            stream._sock.sendall(job.encode() + b"\n")
            yield engine.lines(piece for _, piece in frames_iter(stream, tty=False))  # type: ignore[no-untyped-call]
        finally:
            late.cancel()
            stream._response.close()

    def _kill(self, container: str) -> None:
        with suppress(APIError):
            self._api.kill(container)

    # ---- what there is on the engine

    def _make(self) -> None:
        api = self._api
        try:
            volumes = api.inspect_image(self._foreign)["Config"]["Volumes"] or {}  # type: ignore[no-untyped-call]
        except ImageNotFound as error:
            what = f"the Docker engine does not have the image {self._foreign}."
            raise Unavailable(what, f"Build it, or pull it: docker pull {self._foreign}") from error
        network = api.create_network(
            f"chitcp-{self._lab}",
            driver="bridge",
            internal=True,
            options=_NO_GATEWAY,
            labels=self._labels("link", "wire"),
        )["Id"]
        volume = Mount(
            SOCKET_DIRECTORY,
            f"chitcp-{self._lab}.sockets",
            labels=self._labels("volume", "sockets"),
            no_copy=True,
            driver_config=_FOR_ANYBODY,
        )
        paths = {normpath(path) for path in volumes} - {SOCKET_DIRECTORY}
        writable = dict.fromkeys(paths, _VOLUME) | _WRITABLE
        self._daemon = self._start(network, volume, self._foreign, None, "host", tmpfs=writable)
        # The socket is whoever's the image says: the judge may open it all the same.
        self._beside = self._start(network, volume, image(), _WAIT, "beside", user="root", cap_add=["DAC_OVERRIDE"])
        knows = engine.run(api, self._beside, ["python", "-c", "import testbed.grading.outside.judge"])
        if knows.status:
            raise Unavailable(f"the image {image()} is older than this testbed.", "Build it anew: make image.")

    def _start(
        self,
        network: str,
        volume: Mount,
        name: str,
        command: list[str] | None,
        kind: str,
        *,
        user: str | None = None,
        **limits: Any,
    ) -> str:
        api = self._api
        host = api.create_host_config(
            **(confined() | {"log_config": _LOG, **limits}),
            memswap_limit="512m",
            security_opt=["no-new-privileges"],
            read_only=True,
            network_mode=network,
            mounts=[volume],
        )
        try:
            container = str(
                api.create_container(
                    name,
                    command,
                    user=user,
                    name=f"chitcp-{self._lab}.{kind}",
                    labels=self._labels(kind, "judge" if kind == "beside" else "chitcpd"),
                    environment={"CHITCPD_SOCK": _SOCKET, "CHITCPD_CONTROL": "/tmp/chitcpd.control"},
                    host_config=host,
                )["Id"]
            )
        except ImageNotFound as error:
            raise Unavailable(f"there is no image {image()}.", "Build it: make image.") from error
        with suppress(APIError) if kind == "host" else nullcontext():  # what can't be started is graded: with nothing
            api.start(container)
        return container

    def _labels(self, kind: str, name: str) -> dict[str, str]:
        own = {LAB: self._lab, RUN: self._lab, KIND: kind, NAME: name, FOREIGN: self._foreign}
        return {**own, OWNER: owner(), MAKER: processes.this_one()}

    def _address(self, container: str) -> str:
        ends = self._api.inspect_container(container)["NetworkSettings"]["Networks"].values()
        return next((str(end["IPAddress"]) for end in ends), "")

    def _how_it_ended(self) -> str:
        """How its container ended; nothing if it runs."""
        with suppress(RequestException, NotFound):  # also the time-out
            self._api.wait(self._daemon, timeout=1)
        try:
            state = self._api.inspect_container(self._daemon)["State"]
            log = self._api.logs(self._daemon, tail=_LAST_LINES).decode(errors="replace")
        except (APIError, NotFound):
            return "its container was removed"
        if state["Running"]:
            return ""
        lines = [_NOT_PRINTABLE.sub("?", line)[:_LONGEST_LINE] for line in log.splitlines()[-_LAST_LINES:]]
        how = "its memory was used up" if state.get("OOMKilled") else f"status {state['ExitCode']}"
        why = _NOT_PRINTABLE.sub("?", state.get("Error") or "")[:_LONGEST_LINE]
        end = f"; its last lines: {' / '.join(lines)}" if lines else ""
        return f"its container ended ({how}{': ' + why if why else ''}){end}"

    def _remove(self) -> None:
        with engine.faults():
            Things(self._api).remove(f"{LAB}={self._lab}", f"{RUN}={self._lab}")
        self._api.close()
