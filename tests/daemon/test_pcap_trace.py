"""What a daemon leaves for those who look at it afterwards: captures, traces, its log."""

from __future__ import annotations

import errno
import io
import json
import re
import shutil
import struct
import subprocess
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import pytest
from jsonschema import Draft202012Validator
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet
from scapy.utils import PcapReader, RawPcapNgReader, RawPcapReader

from chisocket.protocol import chitcpd_pb2 as pb
from chitcpd.demux import FourTuple
from chitcpd.loader import load
from chitcpd.pcap import Capture, whole_packets
from chitcpd.pcap import Packets as Captured
from chitcpd.tcp import wire
from chitcpd.tcp.api import ACK, FIN, PSH, RST, SYN, URG, Info, Options, Segment, State, TcpConnection, Timer
from chitcpd.tcp.connection import Connection
from chitcpd.trace import VERBOSE, Recorder, flag_letters, whole_lines
from tests.daemon.application import Application, Conversation, sockaddr_in
from tests.daemon.conftest import running_daemon
from tests.daemon.lab import Host, Lab

DOCS = Path(__file__).parents[2] / "docs"
ALICE, BOB, PORT = "10.0.0.2", "10.0.0.3", 7
NOON = 1_700_000_000_123_456_789  # nanoseconds since the epoch


def packets(capture: bytes) -> list[Packet]:
    """All packets, whole: scapy alone would cut off what is longer than 65,535 bytes."""
    found = []
    with PcapReader(io.BytesIO(capture)) as reader, suppress(EOFError):  # type: ignore[arg-type]  # a file will do
        while True:
            found.append(reader.read_packet(size=1 << 17))
    return found


def a_capture(*captured: Captured | tuple[Captured, str], pcapng: bool = False) -> bytes:
    """The bytes of a file with these packets; of one that is dropped with the reason."""
    file = io.BytesIO()
    capture = Capture(file, pcapng=pcapng)
    for packet in captured:
        if isinstance(packet, tuple):
            capture.drop(*packet)
        else:
            capture.take(packet)
    capture.flush()
    return file.getvalue()


class RecordedHost:
    """A host in virtual time, all of whose events are recorded."""

    def __init__(self, lab: Lab, address: str, tcp: type[TcpConnection] = Connection) -> None:
        self.capture_file, self.trace_file = io.BytesIO(), io.BytesIO()
        self._capture = Capture(self.capture_file)
        self.writes = 0
        self.recorder = Recorder(lambda: NOON + int(lab.now * 1e9), self.trace_file, self._capture, self._written)
        self.host: Host = lab.host(address, tcp=tcp, recorder=self.recorder)
        self.recorder.connections = self.host.driver.demux.connections

    def _written(self) -> None:
        self.writes += 1

    @property
    def capture(self) -> list[Packet]:
        self._capture.flush()
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
        capture = a_capture(Captured(NOON, ALICE, BOB, (segment,), sent=True))
        assert capture[:4] == struct.pack("=I", 0xA1B23C4D)
        with RawPcapReader(io.BytesIO(capture)) as reader:  # type: ignore[arg-type]  # a file will do
            [(_, about)] = reader
            assert reader.linktype == 101  # raw IP
        assert about.sec * 10**9 + about.usec == NOON

    def test_ipv6(self) -> None:
        segment = wire.encode(Segment(1, flags=SYN), 1, 2, wire.pseudo_header("fd00::2", "fd00::3"))
        [packet] = packets(a_capture(Captured(NOON, "fd00::2", "fd00::3", (segment,), sent=True)))
        assert (packet[IPv6].src, packet[IPv6].dst, packet[TCP].flags) == ("fd00::2", "fd00::3", "S")
        assert packet[IPv6].plen == 20

    def test_a_segment_longer_than_an_ip_packet_can_be(self) -> None:
        """A C peer's could not be; ours, over a link of the largest MTU, has room for no IP header."""
        segment = wire.encode(Segment(1, data=bytes(65_515)), 1, 2, 0)
        [packet] = packets(a_capture(Captured(NOON, ALICE, BOB, (segment,), sent=True)))
        assert packet[IP].len == 0  # analysers look at the record then, as with TSO
        assert len(packet[TCP].payload) == 65_515

    @pytest.mark.parametrize("pcapng", [False, True])
    @pytest.mark.parametrize(("ours", "theirs"), [(ALICE, BOB), ("fd00::2", "fd00::3")])
    def test_a_dropped_segment_has_no_hop_left(self, ours: str, theirs: str, pcapng: bool) -> None:
        """It is one packet, with the time at which it was sent."""
        raw = [wire.encode(Segment(n, flags=SYN), 1, 2, wire.pseudo_header(ours, theirs)) for n in range(3)]
        sent = [Captured(NOON + n, ours, theirs, (raw[n],), sent=True) for n in range(3)]
        lost = Captured(NOON + 9, ours, theirs, (raw[1],), sent=True), "loss"
        found = packets(a_capture(sent[0], sent[1], lost, sent[2], pcapng=pcapng))
        hops = [packet[IP].ttl if IP in packet else packet[IPv6].hlim for packet in found]
        assert (hops, [packet[TCP].seq for packet in found]) == ([64, 0, 64], [0, 1, 2])
        assert found[1].time < found[2].time

    def test_what_is_dropped_later_is_a_packet_of_its_own(self) -> None:
        raw = [wire.encode(Segment(n, flags=SYN), 1, 2, wire.pseudo_header(ALICE, BOB)) for n in range(2)]
        sent = [Captured(NOON, ALICE, BOB, (segment,), sent=True) for segment in raw]
        file = io.BytesIO()
        capture = Capture(file)
        for packet in sent:
            capture.take(packet)
        capture.flush()
        capture.drop(Captured(NOON + 9, ALICE, BOB, (raw[0],), sent=True), "unreachable")
        capture.flush()
        found = packets(file.getvalue())
        assert [(packet[IP].ttl, packet[TCP].seq) for packet in found] == [(64, 0), (64, 1), (0, 0)]

    @pytest.mark.parametrize("pcapng", [False, True])
    @pytest.mark.parametrize("lost", range(3))
    def test_any_of_those_that_are_not_written_yet_may_be_dropped(self, lost: int, pcapng: bool) -> None:
        pseudo = wire.pseudo_header(ALICE, BOB)
        segments = [Segment(n, flags=ACK, data=data) for n, data in enumerate((b"a", b"b", b"cd"))]
        raw = [wire.encode(segment, 1, 2, pseudo) for segment in segments]
        twice = [Captured(NOON, ALICE, BOB, raw, sent=True) for _ in range(2)]
        drop = Captured(NOON + 9, ALICE, BOB, (raw[lost],), sent=True), "queue"
        found = packets(a_capture(*twice, drop, drop, pcapng=pcapng))
        assert [packet[TCP].payload.load for packet in found] == [b"a", b"b", b"cd"] * 2
        assert [packet[IP].ttl for packet in found] == [64] * 3 + [0 if n == lost else 64 for n in range(3)]
        assert {int(packet.time * 10**9) for packet in found} == {NOON}

    def test_checksums_of_dropped_packets_are_right(self) -> None:
        raw = wire.encode(Segment(1, flags=SYN), 1, 2, wire.pseudo_header(ALICE, BOB))
        [packet] = packets(a_capture((Captured(NOON, ALICE, BOB, (raw,), sent=True), "loss")))
        again = IP(bytes(packet))
        del again[IP].chksum
        assert bytes(IP(bytes(again))) == bytes(packet)

    def test_a_pcapng_says_why_and_which_way(self) -> None:
        raw = [wire.encode(Segment(n, flags=SYN), 1, 2, wire.pseudo_header(ALICE, BOB)) for n in range(2)]
        capture = a_capture(
            (Captured(NOON, ALICE, BOB, (raw[0],), sent=True), "queue"),
            Captured(NOON + 1, BOB, ALICE, (raw[1] + b"odd",), sent=False),
            pcapng=True,
        )
        with RawPcapNgReader(io.BytesIO(capture)) as reader:  # type: ignore[arg-type]  # a file will do
            records: list[tuple[bytes, Any]] = list(reader)  # scapy types them as those of a pcap
        (first, queue), (second, whole) = records
        assert (queue.direction, queue.comments) == (2, [b"dropped: queue"])  # outbound
        assert (whole.direction, whole.comments) == (1, None)  # inbound
        assert ((queue.tshigh << 32) + queue.tslow, (whole.tshigh << 32) + whole.tslow) == (NOON, NOON + 1)
        assert (first[20:], second[20:]) == (raw[0], raw[1] + b"odd")

    @pytest.mark.skipif(shutil.which("tshark") is None, reason="there is no tshark here")
    @pytest.mark.parametrize("name", ["segments.pcap", "segments.pcapng"])
    def test_wireshark_reads_it(self, name: str, tmp_path: Path) -> None:
        raw = [wire.encode(Segment(n, flags=SYN), 1, 2, wire.pseudo_header(ALICE, BOB)) for n in range(2)]
        sent = Captured(NOON, ALICE, BOB, (raw[0],), sent=True)
        lost = Captured(NOON, ALICE, BOB, (raw[1],), sent=True), "loss"
        (tmp_path / name).write_bytes(a_capture(sent, lost, pcapng=name.endswith("ng")))
        columns = ["frame.time_epoch", "ip.checksum.status", "tcp.checksum.status", "frame.comment", "tcp.seq_raw"]
        checks = ["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]
        fields = [word for column in columns for word in ("-e", column)]
        command = ["tshark", "-n", "-r", name, "-Y", "ip.ttl == 0", *checks, "-T", "fields", *fields]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
        time, *told = done.stdout.rstrip("\n").split("\t")
        assert time.startswith(("1700000000.123456789", "2023-11-14T22:13:20.123456789"))
        assert told == ["1", "1", "dropped: loss" if name.endswith("ng") else "", "1"]

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
        recorder.seen("received", None, FourTuple(ALICE, 1, BOB, 2), segment, [b""])
        line = json.loads(file.getvalue())
        assert line["sack"] == [[300, 400], [100, 200]]
        assert line.keys().isdisjoint({"mss", "window_scale", "sack_permitted", "timestamp"})

    def test_timers(self, recorded: tuple[RecordedHost, RecordedHost]) -> None:
        assert [line["timer"] for line in recorded[0].trace if line["event"] == "timer"] == ["TIME_WAIT"]

    def test_what_was_dropped_and_why(self) -> None:
        host = RecordedHost(Lab(), ALICE)
        host.host.driver.segments_arrive(ALICE, BOB, [b"short"], 0.0)
        [line] = host.trace
        assert line.pop("t") == pytest.approx(NOON / 1e9)
        why = "5 bytes are less than a TCP header"
        assert line == {
            "event": "dropped",
            "local": ALICE,
            "peer": BOB,
            "why": why,
            "direction": "received",
            "bytes": 5,
        }
        assert [packet.ttl for packet in host.capture] == [0]

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
    document = (DOCS / "trace.md").read_text()
    names = {timer.name for timer in Timer} | {field.name for field in (*fields(Options), *fields(Info))}
    assert {name for name in names if f"`{name}`" not in document} == set()


class TestSchema:
    """docs/trace.schema.json, against which the traces of real daemons are held below."""

    SCHEMA = json.loads((DOCS / "trace.schema.json").read_text())
    WELL_FORMED: ClassVar[dict[str, Any]] = {
        "t": 1.5,
        "event": "timer",
        "connection": 1,
        "local": "10.0.0.2:7",
        "peer": "[fd00::3]:5000",
        "timer": "PERSIST",
    }

    def test_it_is_a_schema(self) -> None:
        Draft202012Validator.check_schema(self.SCHEMA)
        assert Draft202012Validator(self.SCHEMA).is_valid(self.WELL_FORMED)

    def test_it_knows_what_the_contract_knows(self) -> None:
        parts = self.SCHEMA["$defs"]
        about = {"t", "event", "connection", "local", "peer"}
        assert parts["tcp"]["properties"].keys() - about == {field.name for field in fields(Info)}
        assert parts["fields_of_a_segment"]["properties"].keys() >= {field.name for field in fields(Options)}
        assert parts["timer"]["properties"]["timer"]["enum"] == [timer.name for timer in Timer]
        assert parts["state_name"]["enum"] == [state.name for state in State]

    @pytest.mark.parametrize(
        "change",
        [
            {"event": "other"},
            {"t": "now"},
            {"timer": "TEA"},
            {"more": 1},
            {"local": "10.0.0.2"},
            {"peer": "fd00::3:5000"},
            {"connection": None},
        ],
    )
    def test_it_refuses(self, change: dict[str, Any]) -> None:
        assert not Draft202012Validator(self.SCHEMA).is_valid(self.WELL_FORMED | change)


def test_ports_of_ipv6_addresses_stand_apart() -> None:
    file = io.BytesIO()
    recorder = Recorder(lambda: NOON, file, None, lambda: None)
    recorder.seen("received", None, FourTuple("fd00::2", 1, "fd00::3", 2), Segment(1, 2, ACK, 3), [b""])
    line = json.loads(file.getvalue())
    assert (line["local"], line["peer"]) == ("[fd00::2]:1", "[fd00::3]:2")


@pytest.mark.parametrize(("how", "prefix"), [("duplicate", "RCVD_DUPLICATE"), ("delayed", "RCVD_DELAYED")])
def test_what_a_debugger_delivers(how: str, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(VERBOSE, "chitcpd.segments")
    file = io.BytesIO()
    recorder = Recorder(lambda: NOON, file, None, lambda: None)
    recorder.seen(how, None, FourTuple(ALICE, 1, BOB, 2), Segment(1, 5, ACK, 9), [b""])
    line = json.loads(file.getvalue())
    assert (line["event"], line["debugger"]) == ("received", how)
    assert caplog.messages == [f"[-] {prefix} 10.0.0.3.2 > 10.0.0.2.1: Flags [.], seq 1, ack 5, win 9, length 0"]


class TestWhatTheTcpSays:
    def test_what_has_changed_after_each_event(self, recorded: tuple[RecordedHost, RecordedHost]) -> None:
        opened, established, *_ = [line for line in recorded[0].trace if line["event"] == "tcp"]
        assert opened["rto"] == 1.0
        assert (opened["congestion"], opened["recovery"], opened["in_flight"]) == ("cubic", "open", 1)  # the SYN
        assert established["srtt"] == pytest.approx(0.02)
        assert (established["mss"], established["snd_wscale"], established["in_flight"]) == (1448, 5, 0)
        assert established.keys().isdisjoint({"congestion", "recovery", "ssthresh"})

    def test_what_it_said_so_far_is_forgotten_with_the_connection(
        self, recorded: tuple[RecordedHost, RecordedHost]
    ) -> None:
        assert [host.recorder._told for host in recorded] == [{}, {}]

    def test_a_tcp_that_does_not_tell_has_no_such_lines(self) -> None:
        lab = Lab()
        alice = RecordedHost(lab, ALICE, load("examples/stop_and_wait.py"))
        bob = lab.host(BOB)
        bob.listen(PORT)
        alice.host.connect(bob, PORT)
        lab.run(until=1.0)
        assert {line["event"] for line in alice.trace} == {"sent", "received", "state"}

    def test_a_tcp_that_fails_to_tell_loses_its_connection_only(self) -> None:
        lab = Lab()
        alice = RecordedHost(lab, ALICE, Dumb)
        opened = alice.host.connect(BOB, PORT)
        assert (opened.error, opened.connection.state) == (errno.EIO, State.CLOSED)
        assert [line["flags"] for line in alice.trace if line["event"] == "sent"] == ["S", "R."]


class Dumb(Connection):
    def info(self) -> Info:
        raise ZeroDivisionError


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
    """Of a daemon two of whose applications have talked to each other, over a link that lost some, and then all."""
    trace, capture = directory / "trace.jsonl", directory / "segments.pcap"
    with running_daemon(directory, "-v", "--trace", str(trace), "-c", str(capture)) as daemon:
        with Application(daemon.socket) as client, Application(daemon.socket) as server:
            talk = Conversation(client, server, daemon.address)
            client.send(talk.near, b"hello, log file")
            assert server.recv_exactly(talk.far, 15) == b"hello, log file"
            daemon.ask("links", links=[{"peers": [daemon.address], "loss": 0.1, "seed": 5}])
            client.send(talk.near, bytes(100_000))
            assert server.recv_exactly(talk.far, 100_000) == bytes(100_000)
            daemon.ask("links", links=[{"peers": [daemon.address]}])
            client.good(pb.CLOSE, sockfd=talk.near)
            assert server.recv(talk.far) == b""
            daemon.ask("links", links=[{"peers": [daemon.address], "loss": 1.0}])
            server.ask(pb.CLOSE, sockfd=talk.far)
        assert daemon.end() == 0
        log = daemon.log.read_text().splitlines()
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    return Left(daemon.address, talk.port, log, lines, packets(capture.read_bytes()))


def test_a_daemon_writes_pcapng_if_the_name_says_so(directory: Path) -> None:
    capture = directory / "segments.pcapng"
    impatient = ("--set", "syn_retries=0", "--set", "rto_initial=10ms")
    with running_daemon(directory, "-c", str(capture), *impatient) as daemon:
        daemon.ask("links", links=[{"peers": [daemon.address], "loss": 1.0}])
        with Application(daemon.socket) as application:
            address = sockaddr_in(daemon.address, PORT)
            resp = application.call(pb.CONNECT, sockfd=application.socket(), addr=address)
            assert resp.error_code == errno.ETIMEDOUT
        assert daemon.end() == 0
    with RawPcapNgReader(str(capture)) as reader:
        told: Any = next(reader)[1]
        assert told.comments == [b"dropped: loss"]


class TestOfARealDaemon:
    """The log is what users of the C chiTCP know and grep (its -v)."""

    LINE = re.compile(r"\[\d\d:\d\d:\d\d\.\d{9}\] +(chitcpd|tcp-socket-\d+) \S.*")
    PACKET = re.compile(
        r"\[(S\d+|-)\] (SENT|RCVD|DROP_SENT) (\d+\.){4}\d+ > (\d+\.){4}\d+: "
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
        recorder.seen("sent", None, FourTuple(ALICE, 1, BOB, 2), Segment(2**32 - 1, 5, ACK, 9, b"abc"), [b""])
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
        recorder.seen("received", None, FourTuple(ALICE, 1, BOB, 2), segment, [b""])
        assert caplog.messages == [f"[-] RCVD 10.0.0.3.2 > 10.0.0.2.1: Flags [.], seq 1, ack 5, win 9{words}, length 0"]

    def test_states_in_the_log(self, left: Left) -> None:
        lines = [line for line in self.messages(left) if " -> " in line]
        assert [line for line in lines if not self.STATE.fullmatch(line)] == []
        assert "[S1] CLOSED -> SYN_SENT" in lines
        assert "[S2] SYN_RCVD -> ESTABLISHED" in lines

    def test_drops_in_the_log(self, left: Left) -> None:
        drops = [line for line in self.messages(left) if " DROP_SENT " in line]
        assert [line for line in drops if not self.PACKET.fullmatch(line.removesuffix(" (loss)"))] == []
        sent = {line for line in self.messages(left) if " SENT " in line}
        assert {line.replace("DROP_SENT", "SENT").removesuffix(" (loss)") for line in drops} <= sent
        assert len(drops) == len([line for line in left.trace if line["event"] == "dropped"]) > 0

    def test_the_trace_tells_the_same(self, left: Left) -> None:
        assert {line["event"] for line in left.trace} >= {"sent", "received", "state", "tcp", "dropped"}
        sent = [line for line in left.trace if line["event"] == "sent"]
        assert len(sent) == sum(" SENT " in line for line in left.log)
        times = [line["t"] for line in left.trace]
        assert times == sorted(times)

    def test_the_capture_tells_the_same(self, left: Left) -> None:
        carried = [line for line in left.trace if line["event"] in ("sent", "received")]
        assert len(left.capture) == len(carried)
        for packet, line in zip(left.capture, carried, strict=True):
            assert packet[TCP].seq == line["seq"]
            assert float(packet.time) == pytest.approx(line["t"], abs=1e-6)

    def test_what_was_lost_is_marked_in_the_capture(self, left: Left) -> None:
        lost = [line for line in left.trace if line["event"] == "dropped"]
        marked = [packet for packet in left.capture if packet[IP].ttl == 0]
        assert [packet[TCP].seq for packet in marked] == [line["seq"] for line in lost]
        assert {packet[IP].ttl for packet in left.capture} == {0, 64}

    def test_a_segment_that_was_lost_has_two_lines(self, left: Left) -> None:
        by_connection = [line for line in left.trace if line["event"] == "dropped" and "connection" in line]
        assert by_connection
        for line in by_connection:
            before = [one for one in left.trace[: left.trace.index(line)] if one["event"] == "sent"]
            sent = next(one for one in reversed(before) if one["seq"] == line["seq"] and one["len"] == line["len"])
            assert line == {**line, **sent, "event": "dropped", "t": line["t"]}
            assert (line["why"], line["direction"]) == ("loss", "sent")

    def test_losses_show_in_what_the_tcp_says(self, left: Left) -> None:
        told = [line for line in left.trace if line["event"] == "tcp" and line["connection"] == 1]
        before = {**told[0], **told[1]}
        assert (before["recovery"], before["mss"], before["cwnd"] > 0) == ("open", 1448, True)
        assert {"recovery", "loss"} & {line.get("recovery") for line in told}
        assert any(line.get("ssthresh") for line in told)
        assert all(line.keys() - {"t", "event", "connection", "local", "peer"} for line in told)

    def test_every_line_is_as_the_schema_says(self, left: Left) -> None:
        validator = Draft202012Validator(TestSchema.SCHEMA)
        assert [line for line in left.trace if not validator.is_valid(line)] == []

    def test_the_example_in_the_document(self, left: Left, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in left.trace))
        monkeypatch.chdir(tmp_path)
        [code] = re.findall(r"```python\n(.*?)```", (DOCS / "trace.md").read_text(), re.DOTALL)
        names: dict[str, Any] = {}
        exec(code, names)
        assert len(names["cwnd"]) > 2
        assert {type(value) for _, value in names["cwnd"]} == {int}


def test_what_a_killed_daemon_has_left_is_cut_back_to_what_is_whole(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    for content, whole in ((b'{"a": 1}\n{"b"', 9), (b'{"a": 1}\n', 9), (b'{"a"', 0), (b"", 0)):
        trace.write_bytes(content)
        with trace.open("rb") as file:
            assert whole_lines(file) == whole


@pytest.mark.parametrize("pcapng", [False, True])
def test_a_capture_is_cut_back_to_whole_packets(tmp_path: Path, pcapng: bool) -> None:
    path = tmp_path / "capture"
    with path.open("wb") as file:
        capture = Capture(file, pcapng=pcapng)
        for number in range(3):
            capture.take(Captured(number, "10.0.0.2", "10.0.0.3", (bytes(21),), sent=True))
        capture.flush()
    content = path.read_bytes()
    with path.open("rb") as file:
        assert whole_packets(file) == len(content)
    path.write_bytes(content[:-5])
    with path.open("rb") as file:
        cut = whole_packets(file)
    assert cut < len(content) - 5
    path.write_bytes(content[:cut])
    with path.open("rb") as file:
        assert whole_packets(file) == cut
