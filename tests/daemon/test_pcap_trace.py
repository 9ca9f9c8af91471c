"""What a daemon leaves for those who look at it afterwards: captures, traces, its log."""

from __future__ import annotations

import io
import json
import re
import struct
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet
from scapy.utils import PcapReader, RawPcapReader

from chisocket.protocol import chitcpd_pb2 as pb
from chitcpd import pcap
from chitcpd.demux import FourTuple
from chitcpd.tcp import wire
from chitcpd.tcp.api import ACK, FIN, PSH, RST, SYN, URG, Options, Segment, Timer
from chitcpd.trace import VERBOSE, Recorder, flag_letters
from tests.daemon.application import Application, Conversation
from tests.daemon.conftest import running_daemon
from tests.daemon.lab import Host, Lab

ALICE, BOB, PORT = "10.0.0.2", "10.0.0.3", 7
NOON = 1_700_000_000_123_456_789  # nanoseconds since the epoch


def packets(capture: bytes) -> list[Packet]:
    """All packets, whole: scapy alone would cut off what is longer than 65,535 bytes."""
    found = []
    with PcapReader(io.BytesIO(capture)) as reader, suppress(EOFError):  # type: ignore[arg-type]  # a file will do
        while True:
            found.append(reader.read_packet(size=1 << 17))
    return found


class RecordedHost:
    """A host in virtual time, all of whose events are recorded."""

    def __init__(self, lab: Lab, address: str) -> None:
        self.capture_file, self.trace_file = io.BytesIO(), io.BytesIO()
        self.writes = 0
        recorder = Recorder(lambda: NOON + int(lab.now * 1e9), self.trace_file, self.capture_file, self._written)
        self.host: Host = lab.host(address, recorder=recorder)

    def _written(self) -> None:
        self.writes += 1

    @property
    def capture(self) -> list[Packet]:
        return packets(self.capture_file.getvalue())

    @property
    def trace(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.trace_file.getvalue().splitlines()]


@pytest.fixture
def recorded() -> tuple[RecordedHost, RecordedHost]:
    """Alice has opened a connection to bob, sent b"hello!" in it and closed it; then bob too."""
    lab = Lab()
    alice, bob = RecordedHost(lab, ALICE), RecordedHost(lab, BOB)
    listener = bob.host.listen(PORT)
    hers = alice.host.connect(bob.host, PORT, local_port=5000)
    lab.run(until=1.0)
    alice.host.write(hers, b"hello!")
    alice.host.driver.close(hers, lab.now)
    lab.run(until=2.0)
    bob.host.driver.close(listener.ready.popleft(), lab.now)
    lab.run(until=10.0)
    return alice, bob


class TestCapture:
    def test_both_hosts_capture_the_same_segments(self, recorded: tuple[RecordedHost, RecordedHost]) -> None:
        alice, bob = (host.capture for host in recorded)
        assert sorted(bytes(packet) for packet in alice) == sorted(bytes(packet) for packet in bob)
        assert [str(packet[TCP].flags) for packet in alice] == ["S", "SA", "A", "PA", "FA", "A", "FA", "A"]

    def test_the_sender_comes_first(self, recorded: tuple[RecordedHost, RecordedHost]) -> None:
        for host in recorded:
            syn, syn_ack, ack, data, *_ = host.capture
            assert (syn[IP].src, syn_ack[IP].src, ack[IP].src, data[IP].src) == (ALICE, BOB, ALICE, ALICE)
            assert [(packet[TCP].sport, packet[TCP].dport) for packet in (syn, syn_ack)] == [(5000, PORT), (PORT, 5000)]
            assert bytes(data[TCP].payload) == b"hello!"

    def test_checksums_are_right(self, recorded: tuple[RecordedHost, RecordedHost]) -> None:
        for packet in recorded[0].capture:
            again = IP(bytes(packet))
            del again[IP].chksum, again[TCP].chksum
            assert bytes(IP(bytes(again))) == bytes(packet)

    def test_times_are_in_nanoseconds(self) -> None:
        segment = wire.encode(Segment(1, flags=SYN), 1, 2, wire.pseudo_header(ALICE, BOB))
        capture = pcap.FILE_HEADER + pcap.record(NOON, ALICE, BOB, segment)
        assert capture[:4] == struct.pack("=I", 0xA1B23C4D)
        with RawPcapReader(io.BytesIO(capture)) as reader:  # type: ignore[arg-type]  # a file will do
            [(_, about)] = reader
            assert reader.linktype == 101  # raw IP
        assert about.sec * 10**9 + about.usec == NOON

    def test_ipv6(self) -> None:
        segment = wire.encode(Segment(1, flags=SYN), 1, 2, wire.pseudo_header("fd00::2", "fd00::3"))
        [packet] = packets(pcap.FILE_HEADER + pcap.record(NOON, "fd00::2", "fd00::3", segment))
        assert (packet[IPv6].src, packet[IPv6].dst, packet[TCP].flags) == ("fd00::2", "fd00::3", "S")
        assert packet[IPv6].plen == 20

    def test_a_segment_longer_than_an_ip_packet_can_be(self) -> None:
        """A C peer's could not be; ours, over a link of the largest MTU, has room for no IP header."""
        segment = wire.encode(Segment(1, data=bytes(65_515)), 1, 2, 0)
        [packet] = packets(pcap.FILE_HEADER + pcap.record(NOON, ALICE, BOB, segment))
        assert packet[IP].len == 0  # analysers look at the record then, as with TSO
        assert len(packet[TCP].payload) == 65_515

    def test_each_record_is_told_of_for_the_flush(self, recorded: tuple[RecordedHost, RecordedHost]) -> None:
        assert all(host.writes == len(host.capture) + len(host.trace) for host in recorded)


class TestTrace:
    def test_the_states_of_both_ends(self, recorded: tuple[RecordedHost, RecordedHost]) -> None:
        states = [[line["to"] for line in host.trace if line["event"] == "state"] for host in recorded]
        assert states[0] == ["SYN_SENT", "ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2", "TIME_WAIT", "CLOSED"]
        assert states[1] == ["LISTEN", "SYN_RCVD", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSED"]

    def test_a_segment(self, recorded: tuple[RecordedHost, RecordedHost]) -> None:
        [line] = [line for line in recorded[1].trace if line["event"] == "received" and line["len"]]
        assert line.pop("t") == pytest.approx(NOON / 1e9 + 1.01)
        assert {type(line.pop(name)) for name in ("seq", "ack")} == {int}
        assert {type(number) for number in line.pop("timestamp")} == {int}
        assert line == {
            "event": "received",
            "connection": 1,
            "local": f"{BOB}:{PORT}",
            "peer": f"{ALICE}:5000",
            "flags": "P.",
            "len": 6,
            "wnd": 2**20 >> 5,  # as it stands in the header: the window is scaled
        }

    def test_a_syn_tells_of_its_options_and_has_no_acknowledgement(
        self, recorded: tuple[RecordedHost, RecordedHost]
    ) -> None:
        [line] = [line for line in recorded[0].trace if line.get("flags") == "S"]
        assert (line["mss"], line["window_scale"], line["sack_permitted"], line["wnd"]) == (1460, 5, True, 65535)
        assert line["timestamp"][1] == 0  # there is nothing to echo yet
        assert "ack" not in line

    def test_sack_blocks(self) -> None:
        file = io.BytesIO()
        recorder = Recorder(lambda: NOON, file, None, lambda: None)
        segment = Segment(1, 2, ACK, 3, options=Options(sack=((300, 400), (100, 200))))
        recorder.segment("received", None, FourTuple(ALICE, 1, BOB, 2), segment, b"")
        line = json.loads(file.getvalue())
        assert line["sack"] == [[300, 400], [100, 200]]
        assert line.keys().isdisjoint({"mss", "window_scale", "sack_permitted", "timestamp"})

    def test_timers(self, recorded: tuple[RecordedHost, RecordedHost]) -> None:
        assert [line["timer"] for line in recorded[0].trace if line["event"] == "timer"] == ["TIME_WAIT"]

    def test_what_was_dropped_and_why(self) -> None:
        host = RecordedHost(Lab(), ALICE)
        host.host.driver.segment_arrives(ALICE, BOB, b"short", 0.0)
        [line] = host.trace
        assert line.pop("t") == pytest.approx(NOON / 1e9)
        why = "5 bytes are less than a TCP header"
        assert line == {"event": "dropped", "why": why, "local": ALICE, "peer": BOB, "bytes": 5}

    def test_a_segment_for_nobody_has_no_connection(self) -> None:
        lab = Lab()
        host = RecordedHost(lab, ALICE)
        lab.inject(host.host, (BOB, PORT), 5000, Segment(1, 2, RST | ACK))
        assert "connection" not in host.trace[0]


@pytest.mark.parametrize(
    ("flags", "letters"),
    [(SYN, "S"), (SYN | ACK, "S."), (FIN | PSH | ACK, "PF."), (RST | ACK, "R."), (0x3F, "UPRSF."), (URG, "U"), (0, "")],
)
def test_flags_are_written_as_tcpdump_does(flags: int, letters: str) -> None:
    assert flag_letters(flags) == letters


def test_the_document_names_every_field_and_every_timer() -> None:
    document = (Path(__file__).parents[2] / "docs" / "trace.md").read_text()
    names = {timer.name for timer in Timer} | {field.name for field in fields(Options)}
    assert {name for name in names if f"| `{name}` |" not in document} == set()


@dataclass(frozen=True)
class Left:
    """What a daemon has left behind."""

    address: str
    port: int
    log: list[str]
    trace: list[dict[str, Any]]
    capture: list[Packet]


@pytest.fixture(scope="module")
def left(directory: Path) -> Left:
    """Of a daemon two of whose applications have talked to each other; one was refused, and one link lost all."""
    trace, capture = directory / "trace.jsonl", directory / "segments.pcap"
    with running_daemon(directory, "-v", "--trace", str(trace), "-c", str(capture)) as daemon:
        with Application(daemon.socket) as client, Application(daemon.socket) as server:
            talk = Conversation(client, server, daemon.address)
            client.send(talk.near, b"hello, log file")
            assert server.recv_exactly(talk.far, 15) == b"hello, log file"
            client.good(pb.CLOSE, sockfd=talk.near)
            assert server.recv(talk.far) == b""
            daemon.ask("links", links=[{"peer": daemon.address, "loss": 1.0}])
            server.ask(pb.CLOSE, sockfd=talk.far)
        assert daemon.end() == 0
        log = daemon.log.read_text().splitlines()
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    return Left(daemon.address, talk.port, log, lines, packets(capture.read_bytes()))


class TestOfARealDaemon:
    """The log is what users of the C chiTCP know and grep (its -v)."""

    LINE = re.compile(r"\[\d\d:\d\d:\d\d\.\d{9}\] +(chitcpd|tcp-socket-\d+) \S.*")
    PACKET = re.compile(
        r"\[(S\d+|-)\] (SENT|RCVD) (\d+\.){4}\d+ > (\d+\.){4}\d+: "
        r"Flags \[W?E?U?P?R?S?F?\.?\], seq \d+(:\d+)?(, ack \d+)?, win \d+(, options \[[\w ,{}:]+\])?, length \d+"
    )
    STATE = re.compile(r"\[S\d+\] [A-Z_12]+ -> [A-Z_12]+")

    def messages(self, left: Left) -> list[str]:
        return [line.split(maxsplit=2)[2] for line in left.log]

    def test_every_line_of_the_log_has_its_time_and_its_source(self, left: Left) -> None:
        assert [line for line in left.log if not self.LINE.fullmatch(line)] == []
        named = [re.match(r"\S+ +(\S+) \[S(\d+)\]", line) for line in left.log]
        assert {match[1] for match in named if match} == {"tcp-socket-1", "tcp-socket-2"}
        assert all(match[1] == f"tcp-socket-{match[2]}" for match in named if match)

    def test_packets_in_the_log(self, left: Left) -> None:
        lines = [line for line in self.messages(left) if " SENT " in line or " RCVD " in line]
        assert [line for line in lines if not self.PACKET.fullmatch(line)] == []
        [data] = [line for line in lines if "SENT" in line and line.endswith("length 15")]
        match = re.fullmatch(
            rf"\[S1\] SENT {re.escape(left.address)}\.\d+ > {re.escape(left.address)}\.{left.port}: "
            r"Flags \[P\.\], seq (\d+):(\d+), ack \d+, win 32768, options \[TS val \d+ ecr \d+\], length 15",
            data,
        )
        assert match is not None, data
        assert (int(match[2]) - int(match[1])) % 2**32 == 15

    def test_a_sequence_number_wraps_in_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(VERBOSE, "chitcpd.segments")
        recorder = Recorder(lambda: NOON, None, None, lambda: None)
        recorder.segment("sent", None, FourTuple(ALICE, 1, BOB, 2), Segment(2**32 - 1, 5, ACK, 9, b"abc"), b"")
        line = "[-] SENT 10.0.0.2.1 > 10.0.0.3.2: Flags [.], seq 4294967295:2, ack 5, win 9, length 3"
        assert caplog.messages == [line]

    def test_a_handshake_in_the_log(self, left: Left) -> None:
        syn, syn_ack = [line for line in self.messages(left) if "SENT" in line and re.search(r"\[S\.?\]", line)]
        options = r"win 65535, options \[mss 1460,wscale 5,sackOK,TS val \d+ ecr {}\], length 0"
        assert re.search(options.format("0"), syn), syn
        assert re.search(options.format(r"\d+"), syn_ack), syn_ack

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (Options(sack=((300, 400),)), ", options [sack 1 {300:400}]"),
            (Options(timestamp=(7, 9), sack=((5, 6), (1, 2))), ", options [TS val 7 ecr 9,sack 2 {5:6}{1:2}]"),
            (Options(), ""),  # some that we don't know
        ],
    )
    def test_options_are_written_as_tcpdump_does(
        self, options: Options, words: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(VERBOSE, "chitcpd.segments")
        recorder = Recorder(lambda: NOON, None, None, lambda: None)
        segment = Segment(1, 5, ACK, 9, options=options)
        recorder.segment("received", None, FourTuple(ALICE, 1, BOB, 2), segment, b"")
        assert caplog.messages == [f"[-] RCVD 10.0.0.3.2 > 10.0.0.2.1: Flags [.], seq 1, ack 5, win 9{words}, length 0"]

    def test_states_in_the_log(self, left: Left) -> None:
        lines = [line for line in self.messages(left) if " -> " in line]
        assert [line for line in lines if not self.STATE.fullmatch(line)] == []
        assert "[S1] CLOSED -> SYN_SENT" in lines
        assert "[S2] SYN_RCVD -> ESTABLISHED" in lines

    def test_drops_in_the_log(self, left: Left) -> None:
        [drop] = [line for line in self.messages(left) if "DROP" in line and "length 20" in line][:1]
        assert drop == f"[-] DROP {left.address} -- {left.address}: loss, length 20"

    def test_the_trace_tells_the_same(self, left: Left) -> None:
        assert {line["event"] for line in left.trace} == {"sent", "received", "state", "dropped"}
        sent = [line for line in left.trace if line["event"] == "sent"]
        assert len(sent) == sum(" SENT " in line for line in left.log)
        times = [line["t"] for line in left.trace]
        assert times == sorted(times)

    def test_the_capture_tells_the_same(self, left: Left) -> None:
        carried = [line for line in left.trace if line["event"] in ("sent", "received")]
        assert len(left.capture) == len(carried)
        for packet, line in zip(left.capture, carried, strict=True):
            assert packet[TCP].seq == line["seq"]
            assert float(packet.time) == pytest.approx(line["t"], abs=1e-3)
