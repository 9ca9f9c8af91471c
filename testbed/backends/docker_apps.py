"""Applications as containers of a Docker engine: their start, what tells that they serve, and their ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from queue import Empty, SimpleQueue
from secrets import token_hex
from threading import Thread
from typing import Any, Literal

from docker import APIClient
from docker.errors import APIError, NotFound
from docker.types import Mount
from requests.exceptions import RequestException

from testbed.backends import engine, terminals
from testbed.backends.base import Exit
from testbed.backends.docker_labels import (
    GRACE,
    KIND,
    LAB,
    NAME,
    PRINT,
    RUN,
    SOCKET_DIRECTORY,
    UID,
    USER,
    WORK,
    confined,
    environment,
    image,
    labels_of,
    name_of,
    volume,
)
from testbed.backends.docker_things import Things
from testbed.plan import AppPlan, Plan
from testbed.search import LineSearch

# The container's init would say "[FATAL tini (7)]" of a program that is not there.
_EXEC = """\
command -v "$1" >/dev/null || { echo "testbed: $0 has no program $1." >&2; exit 127; }
exec "$@"
"""


class Applications:
    """Those of labs; and the ends of daemons, which are told with theirs."""

    def __init__(self, api: APIClient, things: Things) -> None:
        self._api = api
        self._things = things
        self._exits: dict[tuple[str, str], SimpleQueue[Exit]] = {}  # by lab and run
        self._begins: dict[str, float | None] = {}  # when an application's earlier life has written its last line
        self.anew: set[str] = set()  # containers that end because a deed starts them anew: nobody is told of it

    def kill(self, lab: str, app: str, signal: str) -> bool:
        """To the application, past its container's init."""
        try:
            with engine.faults():
                self._api.kill(name_of(lab, "app", app), signal)
        except APIError as error:
            if not any(engine.is_status(error, status) for status in (404, 409)):  # it has not begun, or has ended
                raise
            return False
        return True

    def start(self, plan: Plan, app: AppPlan) -> None:
        """Make an application's container, with its files on a volume, and start it; anew, if it is there."""
        api, host = self._api, plan.node(app.host)
        with engine.faults():
            name = name_of(plan.lab, "app", app.name)
            with suppress(NotFound):
                end = engine.end_of_log(api, name)
                api.start(name)
                self._begins[name] = end
                return
            self._begins.pop(name, None)  # it was of another lab
            container = api.create_container(
                image(),
                list(app.run),
                name=name,
                hostname=host.name,
                user=USER,
                working_dir=WORK,
                labels=labels_of(plan, "app", app.name),
                environment={**environment(host), **app.env},
                host_config=self._of_an_application(
                    name_of(plan.lab, "host", app.host),
                    [volume(plan, "app", app.name, WORK)],
                    memory=app.memory,
                    processes=app.processes,
                ),
            )["Id"]
            engine.put_files(api, container, WORK, app.files, owner=UID, executables=app.executables)
            api.start(container)

    def _of_an_application(self, socket: str, mounts: list[Mount], *, memory: int, processes: int) -> dict[str, Any]:
        config: dict[str, Any] = self._api.create_host_config(
            **{**confined(), "mem_limit": memory, "pids_limit": processes},
            security_opt=["no-new-privileges"],
            network_mode="none",
            read_only=True,
            tmpfs={"/tmp": "size=64m"},
            mounts=[Mount(SOCKET_DIRECTORY, socket, read_only=True, no_copy=True), *mounts],
        )
        return config

    def execute(self, lab: str, host: str, command: Sequence[str], *, terminal: bool) -> int:
        """In a container of its own, which goes with it."""
        with engine.faults():
            beside = self._api.inspect_container(name_of(lab, "host", host))["Config"]["Labels"]
            node = next(node for node in self._things.nodes(lab) if node.name == host)
            name = f"exec-{token_hex(4)}"
            container = self._api.create_container(
                image(),
                ["sh", "-c", _EXEC, host, *command],
                name=name_of(lab, "exec", name),
                hostname=host,
                user=USER,
                working_dir="/tmp",
                tty=terminal,
                stdin_open=True,
                labels={**beside, KIND: "exec", NAME: name, PRINT: ""},
                environment={**environment(node), "TERM": os.environ.get("TERM", "dumb")},
                host_config=self._of_an_application(name_of(lab, "host", host), [], memory=2**29, processes=256),
            )["Id"]
            try:
                return terminals.run(self._api, container, tty=terminal)
            finally:
                with suppress(NotFound):
                    self._api.remove_container(container, v=True, force=True)

    def wait_ready(self, plan: Plan, app: AppPlan) -> bool:
        """Ask the daemon from inside its container, or read what the application writes; and see whether it ends first.

        A daemon that ends takes the command that asks it along.
        """
        answers: SimpleQueue[bool] = SimpleQueue()
        container = name_of(plan.lab, "app", app.name)

        def serves() -> bool:
            if app.says is not None:
                return bool(search.found())
            command = ["chitcpd", "ctl", "--wait", str(app.timeout), "listening", str(app.listening)]
            return engine.run(self._api, name_of(plan.lab, "host", app.host), command, user=USER).status == 0

        def ended() -> bool:
            self._api.wait(container, timeout=None)
            return False

        def answer(question: Callable[[], bool]) -> None:
            try:
                answers.put(question())
            except (APIError, RequestException):  # one of the containers is not there, or not running, any more
                answers.put(False)

        with ExitStack() as stack:
            if app.says is not None:
                search = stack.enter_context(LineSearch(app.says, self._written(container)))
            for question in (serves, ended):
                # Daemons: the slower one ends with its container, and nobody should have to wait for that.
                Thread(target=answer, args=(question,), daemon=True).start()
            try:
                return answers.get(timeout=app.timeout + 1)
            except Empty:
                return False

    def _written(self, container: str) -> Iterator[bytes]:
        """What an application writes; of what an earlier life of it has written, nothing."""
        with suppress(APIError, RequestException):  # its container is not there any more
            pieces = self._api.logs(container, stream=True, follow=True, since=self._begins.get(container))
            with engine.closing(pieces):
                yield from pieces

    def exits(self, plan: Plan) -> SimpleQueue[Exit]:
        """Filled by a thread that follows the engine's events."""
        run = (plan.lab, plan.run_id)
        if run not in self._exits:
            self._exits[run] = SimpleQueue()
            Thread(target=self._follow, args=(plan, self._exits[run]), daemon=True).start()
        return self._exits[run]

    def _follow(self, plan: Plan, exits: SimpleQueue[Exit]) -> None:
        """Tell each end once, until the last of the run's containers has been removed."""
        label = [f"{LAB}={plan.lab}", f"{RUN}={plan.run_id}"]
        told: set[tuple[str, str]] = set()

        def tell(container: str) -> None:
            found = self._api.inspect_container(container)
            end = (container, found["State"]["FinishedAt"])  # it may be started anew, and end once more
            if found["State"]["Status"] in ("exited", "removing", "dead") and end not in told:
                told.add(end)
                put(found["Config"]["Labels"], found["State"]["ExitCode"])

        def put(labels: dict[str, str], status: int) -> None:
            kind: Literal["host", "app"] = "app" if labels[KIND] == "app" else "host"
            if labels[KIND] not in ("beside", "helper", "exec"):
                exits.put(Exit(kind, labels[NAME], status))

        # From the first moment on (`since`): the engine repeats the events that it remembers. It remembers a few
        # hundred, so look at what has ended as well.
        events = self._api.events(
            since=1, decode=True, filters={"type": "container", "event": ["die", "destroy"], "label": label}
        )
        with engine.closing(events), suppress(RequestException):  # the engine has ended
            for container in self._things.containers(*label):
                with suppress(NotFound):
                    tell(container["Id"])
            for event in events:
                container, attributes = event["Actor"]["ID"], event["Actor"]["Attributes"]
                if event["Action"] == "die" and container in self.anew:
                    self.anew.remove(container)
                elif event["Action"] == "die":
                    try:
                        tell(container)
                    except NotFound:  # somebody has removed it
                        if container not in {ended for ended, _ in told}:
                            put(attributes, int(attributes["exitCode"]))
                elif not self._things.containers(*label):
                    return

    def stop(self, plan: Plan, app: AppPlan) -> None:
        """SIGTERM, SIGKILL three seconds later."""
        with engine.faults(), suppress(NotFound):
            self._api.stop(name_of(plan.lab, "app", app.name), timeout=GRACE)
