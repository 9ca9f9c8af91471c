"""The Wireshark dissector for port 23300, run by tshark."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from chitcpd.carrier import HEADER, PROTO_PROBE, PROTO_TCP, ROUTED
from chitcpd.tcp import wire
from chitcpd.tcp.api import ACK, PSH, SYN, Options, Segment
from testbed import dissector
from testbed.cli import main
from tests.testbed.conftest import PROJECT
from tests.testbed.test_local import run_testbed

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="there is no tshark here")

SYN_SEGMENT = wire.encode(
    Segment(1000, flags=SYN, wnd=5, options=Options(mss=1460, window_scale=7, sack_permitted=True, timestamp=(11, 12))),
    5000,
    7,
    0,
)
DATA = wire.encode(Segment(1001, 77, PSH | ACK, 4096, b"hello", Options(sack=((90, 95), (80, 85)))), 5000, 7, 0)


def message(payload: bytes, *, proto: int = PROTO_TCP, flags: int = 0, rest: bytes = b"") -> bytes:
    return HEADER.pack(len(payload), proto, flags, rest) + payload


def packets(pieces: Iterable[bytes], client_port: int = 40_000) -> list[Packet]:
    """These pieces of a byte stream, a packet each, behind a handshake."""
    ends = IP(src="10.0.0.2", dst="10.0.0.3") / TCP(sport=client_port, dport=23300)
    answer = IP(src="10.0.0.3", dst="10.0.0.2") / TCP(sport=23300, dport=client_port, flags="SA", seq=500, ack=101)
    syn = ends.copy()
    syn[TCP].flags, syn[TCP].seq = "S", 100
    made: list[Packet] = [syn, answer]
    seq = 101
    for piece in pieces:
        packet = ends.copy() / Raw(piece)
        packet[TCP].flags, packet[TCP].seq, packet[TCP].ack = "PA", seq, 501
        made.append(packet)
        seq += len(piece)
    return made


def dissected(capture: Path, made: Sequence[Packet], *names: str, only: str = "chitcp") -> list[list[str]]:
    """The fields of those packets that are chiTCP. Nothing may be wrong with the Lua."""
    wrpcap(str(capture), list(made))
    return read(capture, *names, only=only)


def read(capture: Path, *names: str, only: str = "chitcp") -> list[list[str]]:
    options = [option for name in names for option in ("-e", name)]
    command = ["tshark", "-n", "-X", f"lua_script:{dissector.FILE}", "-r", str(capture), "-Y", only, "-T", "fields"]
    ran = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    assert "lua" not in ran.stderr.lower()
    return [line.split("\t") for line in ran.stdout.splitlines()]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return tmp_path / "wire.pcap"


def test_all_fields_of_a_segment(capture: Path) -> None:
    names = "length proto tcp.srcport tcp.dstport tcp.seq tcp.ack tcp.hdr_len tcp.flags tcp.window tcp.len tcp.payload"
    read = dissected(capture, packets([message(DATA)]), *(f"chitcp.{name}" for name in names.split()))
    payload = b"hello".hex()
    expected = "45 1 5000 7 1001 77 40 0x18 4096 5".split()  # noqa: SIM905  # as many columns as names
    assert read == [[*expected, payload]]


def test_flags_and_options(capture: Path) -> None:
    names = ["mss", "wscale", "sack_perm", "tsval", "tsecr", "sack_le", "sack_re"]
    made = packets([message(SYN_SEGMENT), message(DATA)])
    syn, data = dissected(capture, made, *(f"chitcp.tcp.options.{name}" for name in names))
    assert syn == ["1460", "7", "1", "11", "12", "", ""]
    assert data == ["", "", "", "", "", "90,80", "95,85"]
    assert len(dissected(capture, made, "frame.number", only="chitcp.tcp.flags.syn == 1")) == 1
    assert len(dissected(capture, made, "frame.number", only="chitcp.tcp.flags.ack == 1 && chitcp.tcp.port == 7")) == 1


def test_a_route_through_a_router(capture: Path) -> None:
    route = bytes([10, 0, 0, 2, 10, 0, 9, 3, 64])
    names = ("chitcp.flags.routed", "chitcp.route.source", "chitcp.route.destination", "chitcp.route.routers")
    read = dissected(capture, packets([message(DATA, flags=ROUTED, rest=route), message(DATA)]), *names)
    assert read[0][1:] == ["10.0.0.2", "10.0.9.3", "64"]
    assert read[0][0] in ("1", "True")
    assert read[1][1:] == ["", "", ""]


def test_a_probe_of_a_link(capture: Path) -> None:
    probe = struct.pack("!B3xIIQ", 3, 9, 0, 0)
    read = dissected(capture, packets([message(probe, proto=PROTO_PROBE)]), "chitcp.probe.kind", "chitcp.probe.number")
    assert read == [["3", "9"]]


def test_many_messages_in_one_packet(capture: Path) -> None:
    read = dissected(capture, packets([message(DATA) * 12]), "chitcp.tcp.seq", "_ws.col.Info")
    assert read[0][0] == ",".join(["1001"] * 12)
    assert read[0][1].startswith("5000 > 7 [P.] seq 1001 ack 77 win 4096 len 5 | ")


def test_split_at_every_byte(capture: Path) -> None:
    """A connection for each place at which two messages can be cut into two packets."""
    stream, made = message(SYN_SEGMENT) + message(DATA), []
    for cut in range(1, len(stream)):
        made += packets([stream[:cut], stream[cut:]], client_port=10_000 + cut)
    rows = dissected(capture, made, "tcp.srcport", "chitcp.tcp.seq")
    found: dict[str, list[str]] = {}
    for port, seq in rows:
        found.setdefault(port, []).extend(seq.split(",") if seq else [])
    assert found == {str(10_000 + cut): ["1000", "1001"] for cut in range(1, len(stream))}


def test_one_byte_in_each_packet(capture: Path) -> None:
    stream = message(SYN_SEGMENT) + message(DATA)
    rows = dissected(capture, packets([stream[at : at + 1] for at in range(len(stream))]), "chitcp.tcp.seq")
    assert [seq for [seq] in rows if seq] == ["1000", "1001"]


@pytest.mark.parametrize(
    ("stream", "expert"),
    [
        (HEADER.pack(19, PROTO_TCP, 0, b"") + bytes(19), "chitcp.bad_header"),
        (HEADER.pack(20, 77, 0, b"") + bytes(20), "chitcp.bad_header"),
        (b"GET / HTTP/1.1\r\nHost: bob\r\n\r\n", "chitcp.bad_header"),
        (message(DATA[:12] + b"\x40" + DATA[13:]), "chitcp.tcp.bad_offset"),  # 16 bytes
        (message(SYN_SEGMENT[:12] + b"\xf0" + SYN_SEGMENT[13:]), "chitcp.tcp.bad_offset"),  # 60, of 40
        (message(DATA[:23] + b"\x00" + DATA[24:]), "chitcp.tcp.bad_option"),
        (message(DATA[:23] + b"\xff" + DATA[24:]), "chitcp.tcp.bad_option"),
    ],
    ids=["short", "protocol", "http", "small offset", "large offset", "no length", "long option"],
)
def test_what_is_no_chitcp_is_said_to_be_none(capture: Path, stream: bytes, expert: str) -> None:
    assert len(dissected(capture, packets([stream]), "frame.number", only=expert)) == 1


def test_a_huge_length_that_never_comes(capture: Path) -> None:
    """The next messages are a part of it, as they are for a chitcpd."""
    stream = HEADER.pack(0xFFFF, PROTO_TCP, 0, b"") + DATA
    rows = dissected(capture, packets([stream, message(DATA)]), "chitcp.tcp.seq", only="tcp.len > 0")
    assert rows == [[""], [""]]


def test_a_capture_that_cuts_packets_off(capture: Path) -> None:
    """After every byte, in a connection of its own each."""
    whole = message(DATA)
    records = [struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)]
    for kept in range(40, 40 + len(whole) + 1):
        for packet in map(bytes, packets([whole, whole], 10_000 + kept)):
            records += [struct.pack("=IIII", 0, 0, min(kept, len(packet)), len(packet)), packet[:kept]]
    capture.write_bytes(b"".join(records))
    rows = read(capture, "tcp.srcport", "chitcp.tcp.seq", only="chitcp.tcp.seq")
    header = 16 + 20
    assert {port for port, _ in rows} == {str(10_040 + kept) for kept in range(header, len(whole) + 1)}


def test_the_wire_of_a_real_run(own_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every segment that a host has sent, and none else, is what the dissector finds on its wire."""
    del own_state
    monkeypatch.chdir(tmp_path)
    topology = PROJECT / "topologies" / "precise-loss.yaml"
    assert run_testbed("run", str(topology), "--backend", "local").returncode == 0
    alice = tmp_path / "runs" / "precise-loss" / "latest" / "hosts" / "alice"
    if not (alice / "wire.pcap").is_file():
        pytest.skip("the wire can't be captured here: the manifest says why")
    names = ["srcport", "dstport", "seq", "ack", "len"]
    here = ["-n", "-X", f"lua_script:{dissector.FILE}", "-d", f"tcp.port=={os.environ['CHITCPD_PORT']},chitcp"]
    wire = Counter(
        one
        for row in tshark(alice / "wire.pcap", [f"chitcp.tcp.{name}" for name in names], *here)
        for one in zip(*(value.split(",") for value in row), strict=True)
        if row[0]
    )
    names[3] = "ack_raw"
    absolute = ["-o", "tcp.relative_sequence_numbers:false", "-Y"]
    plain, given_up = (
        Counter(map(tuple, tshark(alice / "segments.pcap", [f"tcp.{name}" for name in names], *absolute, which)))
        for which in ("ip.ttl > 0", "ip.ttl == 0")
    )
    assert plain.total() > 150
    assert not wire - plain
    assert not plain - wire - given_up  # for the other daemon had ended before


def tshark(capture: Path, names: Sequence[str], *options: str) -> list[list[str]]:
    """The fields of all packets."""
    asked = [option for name in names for option in ("-e", name)]
    command = ["tshark", "-r", str(capture), "-T", "fields", *options, *asked]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in ran.stdout.splitlines()]


def mangled(chosen: random.Random, port: int) -> Iterable[bytes]:
    """The records of a connection: messages with random bytes in them, in random pieces, cut by the capture."""
    stream = bytearray((message(SYN_SEGMENT) + message(DATA)) * 2)
    for _ in range(chosen.choice([0, 1, 3, 200])):
        stream[chosen.randrange(len(stream))] = chosen.randrange(256)
    cuts = [0, *sorted(chosen.sample(range(1, len(stream)), chosen.choice([0, 1, 2, 5]))), len(stream)]
    pieces = [bytes(stream[begin:end]) for begin, end in pairwise(cuts)]
    longest = chosen.choice([40 + chosen.randrange(len(stream)), 65535])
    for packet in map(bytes, packets(pieces, port)):
        kept = min(len(packet), longest)
        yield struct.pack("=IIII", 0, 0, kept, len(packet)) + packet[:kept]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("passes", ["-n", "-2"])  # Wireshark looks at packets once more than tshark does
def test_no_bytes_and_no_cuts_are_a_fault_in_the_lua(capture: Path, seed: int, passes: str) -> None:
    chosen, made = random.Random(seed), [struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)]
    for port in range(10_000, 10_200):
        made += mangled(chosen, port)
    capture.write_bytes(b"".join(made))
    command = ["tshark", "-n", passes, "-X", f"lua_script:{dissector.FILE}", "-r", str(capture), "-V", "-O", "chitcp"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    for wrong in ("Lua Error", "lua_script", "Dissector bug", "attempt to", "Malformed Packet"):
        assert wrong not in ran.stdout + ran.stderr, wrong
    assert ran.stdout.count("TCP segment") > 200


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dissector"]) == 0
    assert Path(capsys.readouterr().out.strip()).read_text().startswith("-- A Wireshark dissector")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert main(["dissector", "--install"]) == 0
    installed = Path(capsys.readouterr().out.strip().removeprefix("installed: "))
    assert installed.is_relative_to(tmp_path)
    assert installed.read_bytes() == dissector.FILE.read_bytes()
    listed = subprocess.run(["tshark", "-G", "plugins"], capture_output=True, text=True, check=True).stdout
    assert str(installed) in listed
