"""A bounded size of the fuzz of the UNIX socket. More: python -m tests.daemon.fuzz_rpc."""

from __future__ import annotations

from tests.daemon import fuzz_rpc
from tests.daemon.conftest import StartDaemon

SEED, MESSAGES = 1, 10_000


def test_bad_input_does_no_harm(daemon: StartDaemon) -> None:
    outcome = fuzz_rpc.run(daemon(), MESSAGES, SEED)
    print(f"seed {SEED}: {outcome}")
    assert outcome.answers > MESSAGES // 4  # it is not only refused
    assert outcome.descriptors[1] <= outcome.descriptors[0] + 5
    assert outcome.resident[1] <= outcome.resident[0] + 4096
