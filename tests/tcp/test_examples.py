"""The examples keep what they promise: the conformance suite, but for what they leave out, and transfers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from chitcpd.loader import load
from chitcpd.sim import Application, Host, Shape, Simulation
from chitcpd.tcp.api import Config, TcpConnection
from tests.tcp.harness import stream

ROOT = Path(__file__).parents[2]
STOP_AND_WAIT = ROOT / "examples" / "stop_and_wait.py"

# What stop_and_wait leaves out, and the tests that need it.
LEFT_OUT = {
    "one segment is in flight, so no two can be seen at once": """
        test_close.py::test_closing_during_the_handshake
        test_data.py::test_what_is_sent_is_cut_into_the_largest_segments_at_once
        test_data.py::test_acknowledgements_move_the_window_along
        test_data.py::test_nagle_does_not_hold_full_segments
        test_data.py::test_nagle_can_be_turned_off
        test_flow_control.py::test_no_more_is_in_flight_than_the_peer_has_room_for
        test_flow_control.py::test_a_window_update_alone_lets_data_flow
        test_flow_control.py::test_the_window_is_a_number_without_sign
        test_flow_control.py::test_a_window_that_shrinks_stops_new_data_and_does_no_harm
    """,
    "with one segment in flight there is no congestion window": """
        test_congestion.py::test_a_smaller_initial_window_can_be_set
        test_congestion.py::test_one_lost_syn_is_forgiven
        test_congestion.py::test_slow_start_repairs_what_a_time_out_has_lost[cubic]
        test_congestion.py::test_slow_start_repairs_what_a_time_out_has_lost[newreno]
        test_congestion.py::test_the_handshake_does_not_enlarge_the_window
        test_congestion.py::test_slow_start_doubles_with_each_round_trip
        test_congestion.py::test_congestion_avoidance_adds_a_segment_with_each_round_trip
        test_congestion.py::test_a_loss_halves_the_window
        test_congestion.py::test_several_losses_in_one_window_halve_it_once
        test_congestion.py::test_the_window_never_falls_below_two_segments_by_duplicates
        test_congestion.py::test_repeated_time_outs_of_one_segment_do_not_lower_the_threshold_again
        test_congestion.py::test_limited_transmit
        test_congestion.py::test_duplicates_in_recovery_keep_the_line_busy
        test_congestion.py::test_cubic_goes_back_to_seven_tenths
        test_congestion.py::test_cubic_grows_to_where_it_lost_and_stays_there_for_a_while
        test_congestion.py::test_cubic_too_begins_with_slow_start_and_falls_to_one_segment
        test_congestion.py::test_without_congestion_control_only_the_peer_limits
        test_congestion.py::test_a_loss_that_a_probe_repaired_counts[newreno]
        test_congestion.py::test_a_loss_that_a_probe_repaired_counts[cubic]
    """,
    "nothing is sent again before its time-out: no fast retransmission, no SACK, no RACK": """
        test_recovery.py::test_three_duplicate_acks_bring_the_lost_segment_at_once
        test_recovery.py::test_the_lost_segment_is_sent_again_once
        test_recovery.py::test_what_is_no_duplicate_does_not_count
        test_recovery.py::test_duplicates_are_counted_anew_after_progress
        test_recovery.py::test_a_partial_ack_brings_the_next_lost_segment
        test_recovery.py::test_a_partial_ack_brings_it_however_few_duplicates_came
        test_recovery.py::test_after_a_time_out_old_duplicates_do_not_bring_a_segment_once_more
        test_recovery.py::test_a_segment_below_three_sacked_ones_is_lost
        test_recovery.py::test_three_sacked_segments_are_enough_however_small_they_are
        test_recovery.py::test_only_what_is_missing_is_sent_again_and_that_once
        test_recovery.py::test_blocks_that_make_no_sense_are_not_believed
        test_recovery.py::test_what_a_peer_has_taken_back_is_sent_again
        test_recovery.py::test_sack_wraps
        test_recovery.py::test_what_was_sent_before_something_that_arrived_is_lost_after_the_reordering_window
        test_recovery.py::test_reordering_is_tolerated
        test_recovery.py::test_three_sacked_segments_need_no_reordering_window
        test_recovery.py::test_once_reordering_was_seen_three_sacked_segments_are_not_enough
        test_recovery.py::test_a_lost_retransmission_is_found
        test_recovery.py::test_what_lies_behind_the_last_that_arrived_is_not_lost
        test_recovery.py::test_what_left_before_a_retransmission_at_the_same_moment_says_nothing_of_it
        test_recovery.py::test_what_left_after_a_retransmission_at_the_same_moment_tells_of_its_loss
        test_recovery.py::test_a_lost_tail_is_probed_before_the_time_out
        test_recovery.py::test_a_probe_is_new_data_where_there_is_some
        test_recovery.py::test_a_single_segment_is_probed_before_the_time_out_too
        test_recovery.py::test_one_probe_then_the_time_out
        test_recovery.py::test_a_probe_that_was_not_needed_does_no_harm
        test_recovery.py::test_without_rack_there_is_no_probe
        test_recovery.py::test_a_peer_without_d_sack_tells_by_a_duplicate_ack_that_a_probe_was_not_needed
        test_recovery.py::test_a_second_probe_needs_a_round_trip_to_be_measured_first
        test_recovery.py::test_after_a_time_out_what_was_sent_just_now_is_not_lost
        test_recovery.py::test_each_round_trip_with_d_sack_widens_the_reordering_window_by_a_quarter
        test_recovery.py::test_limited_transmit_with_sack_does_not_count_either[False]
        test_recovery.py::test_limited_transmit_with_sack_does_not_count_either[True]
        test_recovery.py::test_the_ack_of_the_first_copy_tells_nothing_of_the_second
        test_recovery.py::test_the_probe_is_never_later_than_the_time_out_and_goes_in_its_place
    """,
    "the time-out is fixed and doubled: the round trip is not measured": """
        test_retransmission.py::test_the_first_measurement
        test_flow_control.py::test_the_interval_between_probes_is_not_the_retransmission_time_out
        test_retransmission.py::test_the_second_measurement
        test_retransmission.py::test_the_third_measurement
        test_retransmission.py::test_the_deviation_is_taken_from_the_old_average
        test_retransmission.py::test_a_steady_round_trip_leads_to_a_time_out_just_above_it
        test_retransmission.py::test_a_round_trip_is_measured_from_each_segment_to_its_acknowledgement
        test_retransmission.py::test_it_is_never_less_than_the_floor
        test_retransmission.py::test_a_segment_sent_twice_gives_no_round_trip
        test_retransmission.py::test_a_late_acknowledgement_of_a_segment_sent_twice_gives_no_round_trip_either
        test_retransmission.py::test_a_new_measurement_ends_the_backoff
        test_retransmission.py::test_a_handshake_that_needed_a_time_out_leads_to_three_seconds
        test_retransmission.py::test_with_timestamps_a_segment_sent_twice_gives_a_round_trip
        test_retransmission.py::test_a_fin_gives_a_round_trip_like_data
    """,
    "what comes out of order is dropped": """
        test_reordering.py::test_what_comes_ahead_waits_for_the_gap_and_one_ack_tells_of_all
        test_reordering.py::test_a_segment_that_fills_a_gap_is_acknowledged_at_once
        test_reordering.py::test_several_gaps_are_filled_one_after_the_other
        test_reordering.py::test_nothing_comes_after_a_fin[False]
        test_reordering.py::test_nothing_comes_after_a_fin[True]
        test_reordering.py::test_overlapping_pieces_ahead_of_a_gap_are_joined
        test_reordering.py::test_a_repeated_segment_ahead_of_a_gap_counts_once
        test_reordering.py::test_a_fin_that_comes_ahead_of_data_waits_for_it
        test_reordering.py::test_sequence_numbers_wrap_in_a_gap
        test_reordering.py::test_any_order_gives_the_same_stream[0]
        test_reordering.py::test_any_order_gives_the_same_stream[1]
        test_reordering.py::test_any_order_gives_the_same_stream[2]
        test_reordering.py::test_any_order_gives_the_same_stream[3]
        test_reordering.py::test_any_order_gives_the_same_stream[4]
        test_reordering.py::test_any_order_gives_the_same_stream[5]
        test_reordering.py::test_any_order_gives_the_same_stream[6]
        test_reordering.py::test_any_order_gives_the_same_stream[7]
        test_reordering.py::test_any_order_gives_the_same_stream[8]
        test_reordering.py::test_any_order_gives_the_same_stream[9]
    """,
    "no option but the MSS": """
        test_close.py::test_with_timestamps_a_newer_syn_ends_time_wait_whatever_its_sequence_number
        test_close.py::test_a_connection_with_timestamps_closes_too
        test_options.py::test_a_syn_offers_what_is_set
        test_options.py::test_a_duplicate_is_told_of_the_newest_segment_only
        test_options.py::test_an_answer_offers_only_what_was_offered
        test_options.py::test_our_shift_is_large_enough_for_the_buffer_and_never_above_14[1048576-5]
        test_options.py::test_our_shift_is_large_enough_for_the_buffer_and_never_above_14[8388480-7]
        test_options.py::test_our_shift_is_large_enough_for_the_buffer_and_never_above_14[1073725440-14]
        test_options.py::test_our_shift_is_large_enough_for_the_buffer_and_never_above_14[2147483648-14]
        test_options.py::test_the_window_in_a_syn_is_never_scaled
        test_options.py::test_all_other_windows_are_scaled
        test_options.py::test_a_shift_of_14_makes_a_window_of_a_gigabyte
        test_options.py::test_a_scaled_right_edge_moves_left_by_less_than_the_field_can_say
        test_options.py::test_the_block_with_the_newest_segment_comes_first
        test_options.py::test_blocks_go_when_the_gap_is_filled
        test_options.py::test_as_many_blocks_as_the_header_holds
        test_options.py::test_a_fin_beyond_a_gap_is_told_of_too[True]
        test_options.py::test_a_fin_beyond_a_gap_is_told_of_too[False]
        test_options.py::test_blocks_wrap
        test_options.py::test_what_was_acknowledged_already_is_told_as_a_duplicate_once
        test_options.py::test_a_duplicate_comes_before_what_is_ahead_of_the_gap
        test_options.py::test_a_duplicate_ahead_of_the_gap_comes_before_its_block
        test_options.py::test_the_block_around_a_duplicate_is_the_second_also_if_it_is_an_old_one
        test_options.py::test_the_part_of_a_segment_that_came_twice_is_told
        test_options.py::test_once_agreed_every_segment_has_a_timestamp
        test_options.py::test_a_timestamp_takes_its_room_from_the_data
        test_options.py::test_the_timestamp_clock_runs_with_time
        test_options.py::test_the_timestamp_of_the_last_segment_in_sequence_is_echoed
        test_options.py::test_a_delayed_acknowledgement_echoes_the_earliest
        test_options.py::test_a_segment_without_its_timestamp_is_dropped_in_silence
        test_options.py::test_an_old_duplicate_is_acknowledged_and_dropped
        test_options.py::test_an_old_fin_is_dropped_too
        test_options.py::test_timestamps_wrap
        test_options.py::test_a_connection_that_was_idle_for_24_days_trusts_any_clock
        test_options.py::test_an_acknowledgement_is_measured_by_its_echo
        test_options.py::test_a_handshake_with_all_options_leads_to_a_connection[2]
        test_options.py::test_a_handshake_with_all_options_leads_to_a_connection[4]
    """,
    "each segment is acknowledged at once": """
        test_data.py::test_the_acknowledgement_of_one_segment_waits_but_not_that_of_two
        test_data.py::test_every_second_segment_of_a_long_transfer_is_acknowledged
        test_data.py::test_an_acknowledgement_rides_on_data
        test_data.py::test_an_application_that_reads_at_once_costs_no_more_acknowledgements
    """,
    "any window that is open is used": """
        test_flow_control.py::test_a_window_that_opens_by_little_is_not_filled
        test_flow_control.py::test_half_of_a_small_window_is_worth_a_segment
        test_flow_control.py::test_after_a_while_a_silly_window_is_used_all_the_same
        test_flow_control.py::test_a_silly_window_is_used_within_a_second_however_long_the_time_out_is
    """,
    "of RFC 5961 only the exact sequence number of a reset": """
        test_reset.py::test_data_with_an_acknowledgement_that_is_much_too_old_is_dropped
        test_reset.py::test_challenges_are_throttled
        test_reset.py::test_two_ends_that_disagree_do_not_answer_each_other_for_ever
    """,
    "a reset has SND.NXT, behind a probe too": """
        test_flow_control.py::test_a_reset_while_a_probe_is_unanswered_is_one_that_the_peer_believes
    """,
    "no user time-out, no keep-alive": """
        test_time_outs.py::test_the_user_time_out_ends_a_connection_whose_data_is_not_acknowledged
        test_time_outs.py::test_the_user_time_out_counts_from_the_oldest_data
        test_time_outs.py::test_the_user_time_out_holds_for_data_that_a_closed_window_keeps_back
        test_time_outs.py::test_an_idle_connection_is_probed_if_the_application_wants_it
        test_time_outs.py::test_a_connection_on_which_nothing_was_ever_said_is_probed_too
        test_time_outs.py::test_each_segment_from_the_peer_begins_the_interval_anew
        test_time_outs.py::test_one_probe_without_answer_means_nothing
        test_time_outs.py::test_a_peer_that_answers_no_probe_is_given_up
    """,
}


def test_stop_and_wait_passes_all_of_the_conformance_suite_that_it_does_not_leave_out(tmp_path: Path) -> None:
    """And nothing is listed above that it passes."""
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "tests/tcp/conformance", "--tcp", str(STOP_AND_WAIT)]
    subprocess.run([*command, "-q", "-p", "no:cacheprovider", f"--junitxml={report}"], cwd=ROOT, check=False)
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = {
        f"{case.get('classname', '').rpartition('.')[2]}.py::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }
    left_out = {test for tests in LEFT_OUT.values() for test in tests.split()}
    assert failed - left_out == set()
    assert left_out - failed == set()
    assert len(cases) - len(failed) > 200


def test_stop_and_wait_is_short_and_stands_on_the_contract_alone() -> None:
    source = STOP_AND_WAIT.read_text()
    assert len(source.splitlines()) < 200
    imported = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node).split()[1] for node in imported] == ["errno", "chitcpd.tcp.api"]


# ---- transfers ---------------------------------------------------------------------------------------------


def talks(
    client_tcp: type[TcpConnection], server_tcp: type[TcpConnection], shape: Shape, there: bytes, back: bytes
) -> tuple[bytes, bytes, float]:
    """What the client and the server have received, and how long it took, in seconds of virtual time."""
    simulation = Simulation(seed=3)
    config = Config(retries=100)
    alice = simulation.host("10.0.0.2", tcp=client_tcp, config=config)
    bob = simulation.host("10.0.0.3", tcp=server_tcp, config=config)
    simulation.link(alice, bob, shape)

    def receive_all(socket: Any) -> Application:
        received = b""
        while data := (yield from socket.recv()):
            received += data
        return received

    def server(host: Host) -> Application:
        socket = yield from host.listen(7).accept()
        received = yield from receive_all(socket)
        yield from socket.send(back)
        socket.close()
        return received

    def client(host: Host) -> Application:
        socket = yield from host.connect("10.0.0.3", 7)
        yield from socket.send(there)
        socket.shutdown()
        return (yield from receive_all(socket))

    serving, asking = bob.start(server(bob)), alice.start(client(alice))
    simulation.run()
    return asking.result, serving.result, simulation.now


@pytest.mark.parametrize("server", [str(STOP_AND_WAIT), "reference"], ids=["each other", "the reference"])
@pytest.mark.parametrize(
    "shape",
    [
        Shape(delay=0.01),
        Shape(delay=0.01, loss=0.1),
        Shape(delay=0.01, jitter=0.02, reorder=0.2, duplicate=0.2),
        Shape(delay=0.01, loss=0.1, corrupt=0.1, duplicate=0.1, reorder=0.1),
    ],
    ids=["perfect", "lossy", "reordering", "everything"],
)
def test_stop_and_wait_talks_to(server: str, shape: Shape) -> None:
    there, back = stream(40_000), stream(30_000, at=7)
    one, other = load(str(STOP_AND_WAIT)), load(server)
    assert talks(one, other, shape, there, back)[:2] == (back, there)
    assert talks(other, one, shape, there, back)[:2] == (back, there)


def test_stop_and_wait_sends_a_segment_per_round_trip() -> None:
    """That is what it is slow by: 40 segments of 1460 bytes over 100 ms are 4 s, and a little for opening."""
    one = load(str(STOP_AND_WAIT))
    _, received, seconds = talks(one, load("reference"), Shape(delay=0.05), stream(40 * 1460), b"")
    assert len(received) == 40 * 1460
    assert 4.0 < seconds < 8.0
