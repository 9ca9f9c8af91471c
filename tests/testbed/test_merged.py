"""All captures of a run as one file, read by tshark."""

from __future__ import annotations

import io
import json
import re
import shutil
import struct
import subprocess
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from chitcpd.sim import Shape
from testbed import merged
from testbed.finished import BadTrace, NoSuchRun
from testbed.unavailable import Unavailable
from tests.testbed.recorded import record

NOON = 1_700_000_000_000_000_000  # nanoseconds since the epoch
tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="there is no tshark here")


def fields(capture: Path, *names: str, only: str = "") -> list[list[str]]:
    """What tshark reads from it, packet by packet."""
    options = [option for name in names for option in ("-e", name)]
    command = ["tshark", "-n", "-r", str(capture), "-Y", only, "-T", "fields", "-E", "occurrence=a", *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cut short" not in ran.stderr
    return [line.split("\t") for line in ran.stdout.splitlines()]


@pytest.fixture(scope="module")
def lossy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[str]]:
    """A run that lost segments, and how many comments its traces are good for."""
    recorded = record(3, Shape(delay=0.02, loss=0.1), size=200_000, epoch=NOON)
    expected: Counter[str] = Counter()
    for events in recorded.traces.values():
        expected.update(f"dropped: {event['why']}" for event in events if event["event"] == "dropped")
        expected.update(f"{event['timer']} timer" for event in events if event["event"] == "timer")
        expected.update(f"{event['from']} -> {event['to']}" for event in events if event["event"] == "state")
    return recorded.write(tmp_path_factory.mktemp("run")), expected


@tshark
class TestInTshark:
    def test_all_packets_are_there_in_time_order(self, lossy: tuple[Path, Counter[str]], tmp_path: Path) -> None:
        folder, _ = lossy
        capture = tmp_path / "all.pcapng"
        done = merged.merge_into(folder, capture)
        assert done.interfaces == ["alice", "bob"]
        read = fields(capture, "frame.time_epoch", "frame.interface_name")
        assert len(read) == done.packets
        assert read == sorted(read, key=lambda one: float(one[0]))
        for name in ("alice", "bob"):
            own = fields(folder / "hosts" / name / "segments.pcap", "frame.time_epoch")
            assert [time for time, interface in read if interface == name] == [time for [time] in own]

    def test_comments_say_what_the_traces_do(self, lossy: tuple[Path, Counter[str]], tmp_path: Path) -> None:
        folder, expected = lossy
        merged.merge_into(folder, tmp_path / "all.pcapng")
        found = Counter(
            comment.partition(",")[0] if "later" in comment else comment
            for [comments] in fields(tmp_path / "all.pcapng", "frame.comment", only="frame.comment")
            for comment in comments.replace(", ", "; ").split(",")
        )
        found = Counter({name.partition(";")[0]: count for name, count in found.items()})
        assert {name: found[name] for name in expected} == expected
        assert found["retransmission"] > 5

    def test_the_dropped_and_the_retransmissions_are_the_right_ones(
        self, lossy: tuple[Path, Counter[str]], tmp_path: Path
    ) -> None:
        capture = tmp_path / "all.pcapng"
        merged.merge_into(lossy[0], capture)
        dropped = fields(capture, "frame.number", only='frame.comment contains "dropped: loss"')
        assert dropped == fields(capture, "frame.number", only="ip.ttl == 0")
        seen: set[str] = set()
        again = {number for [number] in fields(capture, "frame.number", only="frame.comment contains retransmission")}
        only = 'frame.interface_name == "alice" && ip.src == 10.0.0.2 && tcp.len > 0'
        for number, seq in fields(capture, "frame.number", "tcp.seq", only=only):
            assert (number in again) == (seq in seen)
            seen.add(seq)

    def test_a_wire_is_an_interface_of_its_own(self, tmp_path: Path) -> None:
        folder = record(1, Shape(delay=0.01), size=10, epoch=NOON).write(tmp_path)
        header = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)  # microseconds, Ethernet
        packet = struct.pack("=IIII", NOON // 10**9, 15_000, 60, 1514) + bytes(60)
        # A capture that was stopped and begun again has another header; the end may be missing.
        (folder / "hosts" / "bob" / "wire.pcap").write_bytes(header + packet + header + packet + packet[:50])
        done = merged.merge_into(folder, folder / merged.NAME)
        assert done.interfaces == ["alice", "bob", "wire"]
        wire = fields(folder / merged.NAME, "frame.len", "frame.cap_len", only='frame.interface_name == "wire"')
        assert wire == [["1514", "60"]] * 2


def pcap(link_type: int, *packets: tuple[int, bytes]) -> bytes:
    """A capture of packets, at their microseconds after NOON."""
    records = [
        struct.pack("=IIII", NOON // 10**9, microseconds, len(raw), len(raw)) + raw for microseconds, raw in packets
    ]
    return struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link_type) + b"".join(records)


def test_a_packet_that_both_ends_have_captured_is_there_once(tmp_path: Path) -> None:
    """Whatever stands before its IP header; but what one end has captured twice was sent twice."""
    folder = record(1, Shape(delay=0.01), size=10, epoch=NOON).write(tmp_path)
    one, other = b"\x45" + bytes(59), b"\x45" + b"other" + bytes(54)
    alice = pcap(1, (10, bytes(14) + one), (20, bytes(14) + one), (30, bytes(14) + other))
    bob = pcap(276, (15, bytes(20) + one), (25, bytes(20) + one), (35, bytes(20) + other))
    plain = merged.merge(folder, io.BytesIO())
    (folder / "hosts" / "alice" / "wire.pcap").write_bytes(alice)
    (folder / "hosts" / "bob" / "wire.pcap").write_bytes(bob)
    done = merged.merge(folder, io.BytesIO())
    assert (done.packets - plain.packets, done.twice) == (3, 3)
    assert done.interfaces == ["alice", "bob", "wire"]
    assert merged.why_no_wire(folder) is None


def test_a_manifest_that_is_a_link_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    folder = record(1, Shape(), size=10).write(tmp_path / "run")
    (tmp_path / "elsewhere").write_text('{"notes": ["no capture of the wire: of somebody else\'s"]}')
    (folder / "manifest.json").unlink(missing_ok=True)
    (folder / "manifest.json").symlink_to(tmp_path / "elsewhere")
    assert "somebody else" not in (merged.why_no_wire(folder) or "")


def test_of_what_one_end_alone_has_captured_little_is_held(tmp_path: Path) -> None:
    """As large as packets are where the network card cuts them."""
    folder = record(1, Shape(delay=0.01), size=10, epoch=NOON).write(tmp_path)
    packets = ((number, bytes(14) + b"\x45" + number.to_bytes(4) + bytes(60_000)) for number in range(1000))
    (folder / "hosts" / "alice" / "wire.pcap").write_bytes(pcap(1, *packets))
    tracemalloc.start()
    try:
        with (tmp_path / "merged").open("wb") as output:
            merged.merge(folder, output)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 10_000_000, "bytes, of 60,000,000"


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        ('{"notes": ["no capture of the wire: a simulation has none"]}', "a simulation has none"),
        ('{"notes": []}', "`capture: {wire: false}` asks for none"),
        ('{"notes": 3}', "`capture: {wire: false}` asks for none"),
        ("{", "`capture: {wire: false}` asks for none"),
    ],
)
def test_it_is_said_why_there_is_no_wire(tmp_path: Path, manifest: str, why: str) -> None:
    folder = record(1, Shape(), size=10).write(tmp_path)
    (folder / "manifest.json").write_text(manifest)
    assert (merged.why_no_wire(folder) or "").endswith(why)


@tshark
@pytest.mark.parametrize("when", [-1.0, 0.0, 2.0], ids=["before the first packet", "near one", "long after"])
def test_of_very_many_comments_it_is_said_how_many_more_there_were(tmp_path: Path, when: float) -> None:
    folder = record(1, Shape(delay=0.01), size=10, epoch=NOON).write(tmp_path)
    trace = folder / "hosts" / "alice" / "trace.jsonl"
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    first = min(event["t"] for event in events) + when
    like = next(event for event in events if event["event"] == "state")
    made = [like | {"t": first, "event": "timer", "timer": f"T{number}"} for number in range(500)]
    events = sorted([*events, *made], key=lambda event: event["t"])
    trace.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    merged.merge_into(folder, tmp_path / "all.pcapng")
    only = 'frame.interface_name == "alice" && frame.comment contains "more"'
    [[comments]] = fields(tmp_path / "all.pcapng", "frame.comment", only=only)
    more = re.search(r"\.\.\. and (\d+) more", comments)
    assert more is not None
    assert 500 <= int(more[1]) + len(re.findall(r"T\d+ timer", comments)) < 510  # and a few changes of state
    assert comments.count(",") < 50


def test_an_empty_capture_does_not_lose_the_others(lossy: tuple[Path, Counter[str]], tmp_path: Path) -> None:
    folder = shutil.copytree(lossy[0], tmp_path / "run")
    whole = merged.merge(folder, io.BytesIO())
    (folder / "hosts" / "killed").mkdir()
    (folder / "hosts" / "killed" / "segments.pcap").touch()
    assert merged.merge(folder, io.BytesIO()) == whole


def test_a_run_without_a_trace_has_no_comments(tmp_path: Path) -> None:
    folder = record(1, Shape(loss=0.1)).write(tmp_path)
    for trace in folder.glob("hosts/*/trace.jsonl"):
        trace.unlink()
    assert merged.merge(folder, io.BytesIO()).comments == 0


def test_what_is_no_capture(tmp_path: Path) -> None:
    with pytest.raises(NoSuchRun, match="no captures"):
        merged.merge(tmp_path, io.BytesIO())
    folder = record(1, Shape()).write(tmp_path)
    capture = folder / "hosts" / "bob" / "segments.pcap"
    whole = capture.read_bytes()
    capture.write_bytes(b"never a pcap")
    with pytest.raises(BadTrace, match="is no pcap"):
        merged.merge(folder, io.BytesIO())
    capture.write_bytes(whole[:24] + b"\xff" * 16)
    with pytest.raises(BadTrace, match="is damaged before byte 40"):
        merged.merge_into(folder, folder / merged.NAME)
    assert not list(folder.glob("*merged*"))  # whole or not at all


def test_a_trace_that_lies_spoils_no_capture(tmp_path: Path) -> None:
    """Its comments are lost, the packets are not."""
    folder = record(1, Shape()).write(tmp_path)
    trace = folder / "hosts" / "bob" / "trace.jsonl"
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    for event in events:
        event["t"] += 1000.0
    trace.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    packets = merged.merge(folder, io.BytesIO()).packets
    trace.unlink()
    assert merged.merge(folder, io.BytesIO()).packets == packets


def test_a_place_that_can_not_be_written(tmp_path: Path) -> None:
    folder = record(1, Shape()).write(tmp_path)
    with pytest.raises(Unavailable, match="can't be written"):
        merged.merge_into(folder, tmp_path / "no" / "such" / "folder.pcapng")
