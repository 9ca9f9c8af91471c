"""The judge, beside the daemon: reads a job from its standard input, and writes a line for all that it finds out.

    {"tests": [...], "seed": 1, "jobs": 32, "socket": "/run/...", "ours": "172.18.0.2", "theirs": "172.18.0.3"}

A line is {"begun": test}, {"ended": test, ...}, {"note": text}, {"trouble": text}, which is the end, or {"over": true}.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from random import Random
from typing import Any

from chitcpd import loader
from chitcpd.tcp.api import ACK, SYN, Options, Segment, State
from testbed.grading.catalog import Test, catalog
from testbed.grading.diagram import short
from testbed.grading.outside.calls import Connection, wait_for_socket
from testbed.grading.outside.live import LiveBench, Place
from testbed.grading.outside.tests import asked
from testbed.grading.outside.wire import Gone, Wire
from testbed.grading.script import Event, Failed, a_syn

PORT = 23300
START_WITHIN = 15.0  # seconds, until the daemon serves
_DIALS_WITHIN = 5.0  # seconds
_MOST_TEXT = 2000  # characters of a message

Tell = Callable[[dict[str, Any]], None]


def judge(job: dict[str, Any], tell: Tell, *, port: int = PORT) -> None:
    """Do a job."""
    wire = Wire(job["ours"], job["theirs"], port)
    try:
        place = Place(wire, job["socket"])
        if trouble := _why_not(place, tell):
            tell({"trouble": trouble})
            return
        wire.pings = all(wire.ping(next(place.ports)) for _ in range(3))
        if not wire.pings:
            tell({"note": "it answers no segment to a port without connection: when it has seen all is a guess"})
        chosen = {test.id: test for test in catalog()}
        died = threading.Event()
        with ThreadPoolExecutor(job["jobs"]) as pool:
            for test in job["tests"]:
                pool.submit(_one, chosen[test], job["seed"], place, died, tell)
        if wire.fault:
            tell({"note": wire.fault})
        tell({"trouble": "it ended"} if died.is_set() else {"over": True})
    finally:
        wire.close()


def _why_not(place: Place, tell: Tell) -> str:
    """Why nothing can be asked of this daemon: "" if all can."""
    wire = place.wire
    end = time.monotonic() + START_WITHIN
    if trouble := wait_for_socket(place.path, START_WITHIN):
        return f"no application can talk to it at $CHITCPD_SOCK for {START_WITHIN:g} s: {trouble}"
    while True:
        try:
            wire.send(Segment(1, 1, ACK), 1, 1)
        except Gone as gone:
            if time.monotonic() > end:
                return str(gone)
            time.sleep(0.1)
        else:
            break
    answers = _tries(place, _answers_a_syn)
    wire.hang_up()
    opens = _tries(place, lambda bench: _opens(bench, tell))
    return f"it answers no SYN ({answers}), and sends none ({opens})" if answers and opens else ""


def _tries(place: Place, run: Callable[[LiveBench], None]) -> str:
    bench = LiveBench(loader.load(loader.REFERENCE), Random(0), place=place)
    try:
        run(bench)
    except (Failed, Gone) as error:
        return str(error)
    finally:
        bench.close()
    return ""


def _answers_a_syn(bench: LiveBench) -> None:
    tcp = bench.connection(State.LISTEN)
    tcp.arrives(a_syn())
    tcp.sends(SYN, 0, 1, within=5.0)


def _opens(bench: LiveBench, tell: Tell) -> None:
    """Its CONNECT opens the real connection, too."""
    wire = bench.place.wire
    tcp = bench.connection(State.CLOSED)
    tcp.open(active=True)
    if not wire.wait_for_its_dial(_DIALS_WITHIN):
        tell({"note": f"CONNECT did not make it open a real connection to the peer's port {PORT}; ours is used"})
        wire.ping(1)
    tcp.sends(SYN, 0, None, within=5.0)


def _one(test: Test, seed: int, place: Place, died: threading.Event, tell: Tell) -> None:
    if died.is_set():
        return
    tell({"begun": test.id})
    bench = LiveBench(loader.load(loader.REFERENCE), Random(f"{seed} {test.id}"), place=place)
    message = ""
    try:
        asked(test)(bench)
    except (Failed, Gone) as failed:
        message = str(failed)
    except OSError as error:
        message = f"a call was answered with error {error.errno}, where none was expected"
    except Exception as error:  # in the pool nobody would hear of it
        message = f"the judge could not go on: {error!r}"
    finally:
        bench.close()
    if message and (died.is_set() or _is_dead(place)):
        died.set()
        return  # who knows of what
    events = [] if not message else [_plain(event) for event in short(bench.events)]
    connections = sum(event.kind == "begin" for event in bench.events)
    tell({"ended": test.id, "message": message[:_MOST_TEXT], "events": events, "connections": connections})


def _is_dead(place: Place) -> bool:
    try:
        Connection(place.path).close()
    except Gone:
        return True
    except Failed:
        return False
    return False


def _plain(event: Event) -> dict[str, Any]:
    seg = event.segment
    plain: dict[str, Any] = {"at": event.at, "kind": event.kind, "text": event.text}
    if seg is not None:
        options = None if seg.options is None else asdict(seg.options)
        plain["segment"] = [seg.seq, seg.ack, seg.flags, seg.wnd, len(seg.data), options]
    return plain


def event_of(plain: dict[str, Any]) -> Event:
    """What `_plain` has made plain; of data, only its length is left."""
    if "segment" not in plain:
        return Event(plain["at"], plain["kind"], plain["text"])
    seq, ack, flags, wnd, length, options = plain["segment"]
    seg = Segment(seq, ack, flags, wnd, bytes(length), None if options is None else Options(**options))
    return Event(plain["at"], plain["kind"], plain["text"], seg)


def main() -> None:
    """Do the job on the standard input; end when that does."""
    job = json.loads(sys.stdin.readline())
    lock = threading.Lock()

    def tell(line: dict[str, Any]) -> None:
        with lock:
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    judge(job, tell)
    os._exit(0)  # threads may wait for answers that nobody needs any more


if __name__ == "__main__":
    main()
