"""A loaded TCP that never ends a call would never let the simulation go on: this raises an exception out of it.

As the daemon's watchdog does: the driver takes it for a fault of that TCP, and it costs one connection.
"""

from __future__ import annotations

import threading
import time

from chitcpd.simlab import EndlessLoop, Lab
from testbed.backends.sim_threads import VirtualClock, raise_in

_TICK = 3.0  # seconds, of the wall clock: a call is found after one to two ticks
_BUSY = 1.0  # seconds of CPU time that it must have taken meanwhile: this machine may have been asleep


class Watch:
    """Looks after a lab while it is entered."""

    def __init__(self, lab: Lab, clock: VirtualClock) -> None:
        self._lab = lab
        self._clock = clock
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        before, busy = None, 0.0
        while not self._over.wait(_TICK):
            call = self._lab.call()
            if call is None or call != before or self._clock.broken:  # then its thread is ended elsewhere
                before, busy = call, time.process_time()
            elif time.process_time() - busy > _BUSY:
                before = None
                raise_in(self._clock.ident, EndlessLoop)
