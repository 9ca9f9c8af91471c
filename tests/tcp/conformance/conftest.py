"""The fixture of the conformance suite, connections of the TCP that `--tcp` names; and what the reference owes."""

from __future__ import annotations

import pytest

from chitcpd.loader import REFERENCE
from chitcpd.tcp.api import TcpConnection
from tests.tcp.harness import Maker, maker


@pytest.fixture
def a_connection(tcp: type[TcpConnection]) -> Maker:
    """Makes connections of the TCP under test, in whichever state."""
    return maker(tcp)


# What the reference does not do yet. An entry whose test passes is a failure: then delete it.
FAULTS = {
    "test_data.py::test_the_last_segment_is_pushed_when_it_is_sent_again_too": "PSH is not repeated",
    "test_flow_control.py::test_a_peer_that_answers_from_a_window_shrunk_to_zero_is_not_given_up": "R2 counts there",
    "test_time_outs.py::test_the_user_time_out_holds_for_data_that_a_closed_window_keeps_back": "only what was sent",
    "test_time_outs.py::test_a_connection_on_which_nothing_was_ever_said_is_probed_too": "not armed at SYN,ACK",
    "test_options.py::test_the_block_around_a_duplicate_is_the_second_also_if_it_is_an_old_one": "order of blocks",
    "test_options.py::test_a_duplicate_is_told_of_the_newest_segment_only": "told with the next ACK without data",
    "test_congestion.py::test_large_segments_make_a_shorter_initial_window": "always segments",
    "test_congestion.py::test_a_handshake_that_needed_a_time_out_begins_with_one_segment": "the whole window",
    "test_congestion.py::test_it_is_halved_from_what_was_in_flight_before_limited_transmit": "counts these too",
    "test_congestion.py::test_a_time_out_leaves_one_segment_also_after_a_fast_retransmission": "takes it for a second",
    "test_congestion.py::test_an_idle_connection_begins_again_with_the_initial_window": "keeps the window",
    "test_congestion.py::test_a_loss_that_a_probe_repaired_counts[newreno]": "forgets the probe at its ACK",
    "test_congestion.py::test_a_loss_that_a_probe_repaired_counts[cubic]": "forgets the probe at its ACK",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--tcp", default=REFERENCE) != REFERENCE:
        return
    for item in items:
        reason = FAULTS.get(f"{item.path.name}::{item.name}")
        if reason is not None and item.path.parent.name == "conformance":
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
