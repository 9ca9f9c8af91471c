"""Whole runs on Docker: what arrives, what the captures show, what an application can and can't do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from scapy.layers.inet import IP, TCP
from scapy.utils import PcapReader

from tests.integration.conftest import PROJECT, Bench, Command
from tests.testbed.schemas import faults

pytestmark = pytest.mark.docker

SIZE = 5 * 2**20


@pytest.fixture(scope="module")
def two_hosts(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> tuple[Command, Path]:
    """topologies/two-hosts.yaml, run once for the tests that look at what it left."""
    bench = Bench(client, tmp_path_factory.mktemp("two-hosts"))
    command = bench.run(str(PROJECT / "topologies" / "two-hosts.yaml"))
    assert bench.left() == []
    return command, bench.latest


def packets(file: Path) -> Iterator[IP]:
    """The IP packets of a capture, whatever carries them in there."""
    with PcapReader(str(file)) as reader:
        for packet in reader:
            yield packet[IP]


def has_right_checksums(packet: IP) -> bool:
    """Whether the IP header, and the segment with its pseudo-header, add up to what RFC 1071 says.

    Of the bytes as they were captured: having scapy compute the checksums anew costs a hundred times as much.
    """
    raw = packet.original[: packet.len]
    header, segment = raw[: packet.ihl * 4], raw[packet.ihl * 4 :]
    pseudo_header = header[12:20] + bytes((0, packet.proto)) + len(segment).to_bytes(2)
    even = bytes(len(segment) % 2)
    return all(int.from_bytes(summed) % 0xFFFF == 0 for summed in (header, pseudo_header + segment + even))


def addresses(folder: Path) -> dict[str, str]:
    manifest = json.loads((folder / "manifest.json").read_text())
    return {name: next(iter(host["addresses"].values())) for name, host in manifest["hosts"].items()}


def test_the_file_arrives_and_the_run_says_so(two_hosts: tuple[Command, Path]) -> None:
    command, folder = two_hosts
    assert command.status == 0, command.output
    sums = re.findall(r"(?:sent|received) +([0-9a-f]{64})", command.output)
    assert len(sums) == 2
    assert len(set(sums)) == 1
    assert re.search(r"client: fetched payload.bin: 5242880 bytes in [\d.]+ s, [\d.]+ MB/s", command.output)
    received = (folder / "apps" / "client" / "files" / "payload.bin").read_bytes()
    assert len(received) == SIZE
    assert received == (folder / "apps" / "server" / "files" / "payload.bin").read_bytes()


@pytest.mark.alone
def test_two_hosts_are_ready_within_three_seconds(two_hosts: tuple[Command, Path]) -> None:
    command, _ = two_hosts
    ready = re.search(r"2 hosts were ready after ([\d.]+) s", command.output)
    assert ready is not None
    assert float(ready[1]) <= 3.0


@pytest.mark.parametrize("host", ["alice", "bob"])
def test_the_segments_of_each_host_are_plain_tcp(two_hosts: tuple[Command, Path], host: str) -> None:
    _, folder = two_hosts
    alice, bob = addresses(folder)["alice"], addresses(folder)["bob"]
    seen = list(packets(folder / "hosts" / host / "segments.pcap"))

    handshake = [(packet.src, packet.dst, str(packet[TCP].flags)) for packet in seen[:3]]
    assert handshake == [(alice, bob, "S"), (bob, alice, "SA"), (alice, bob, "A")]
    assert {(packet.src, packet.dst) for packet in seen} == {(alice, bob), (bob, alice)}
    assert {packet[TCP].sport for packet in seen if packet.src == bob} == {7000}
    assert {packet[TCP].dport for packet in seen if packet.src == alice} == {7000}
    assert [packet.src for packet in seen if "R" in packet[TCP].flags] == []

    carried = sum(len(packet[TCP].payload) for packet in seen if packet.src == bob)
    assert carried >= SIZE
    assert {packet.src for packet in seen if "F" in packet[TCP].flags} == {alice, bob}
    assert all(has_right_checksums(packet) for packet in seen)


@pytest.mark.parametrize("host", ["alice", "bob"])
def test_the_wire_carries_them_on_port_23300(two_hosts: tuple[Command, Path], host: str) -> None:
    _, folder = two_hosts
    ends = set(addresses(folder).values())
    seen = list(packets(folder / "hosts" / host / "wire.pcap"))

    assert str(seen[0][TCP].flags) == "S"
    assert all(23300 in (packet[TCP].sport, packet[TCP].dport) for packet in seen)
    assert all({packet.src, packet.dst} == ends for packet in seen)
    assert sum(packet.len - packet.ihl * 4 - packet[TCP].dataofs * 4 for packet in seen) > SIZE
    # Offloads are off: packets are captured as they are sent, no larger than the link takes, with their checksums.
    assert max(packet.len for packet in seen) <= 1500
    assert all(has_right_checksums(packet) for packet in seen)


def test_a_file_arrives_whole_though_one_segment_in_twenty_is_lost(bench: Bench) -> None:
    command = bench.run(str(PROJECT / "topologies" / "lossy.yaml"))
    assert command.status == 0, command.output
    assert "payload.bin arrived whole" in command.output
    bob = addresses(bench.latest)["bob"]
    data = [
        p[TCP].seq for p in packets(bench.latest / "hosts" / "bob" / "segments.pcap") if p.src == bob and p[TCP].payload
    ]
    assert len(data) > len(set(data))  # something was sent twice


THREE = """
name: three
hosts: {alice: {}, bob: {}, carol: {}, dave: {}}
links:
  - {endpoints: [alice, bob]}
  - {endpoints: [bob, carol], delay: 5ms, jitter: 1ms, rate: 20mbit, queue: 50ms}
apps:
  server:
    host: bob
    run: [python, -m, chisocket.apps.file, serve, --port, "7000"]
    files: {payload.bin: {random: 100kB}}
    ready: {listening: 7000}
  near:
    host: alice
    run: &fetch [python, -m, chisocket.apps.file, fetch, "bob:7000", payload.bin]
    needs: [server]
    expect: {exit: 0}
  far: {host: carol, run: *fetch, needs: [server], expect: {exit: 0}}
checks: [{integrity: near}, {integrity: far}]
"""


def test_a_host_in_the_middle_is_reached_over_each_of_its_links(bench: Bench) -> None:
    command = bench.run(bench.topology(THREE))
    assert command.status == 0, command.output
    manifest = json.loads((bench.latest / "manifest.json").read_text())
    assert faults("manifest", manifest) == []
    assert len(manifest["hosts"]["bob"]["addresses"]) == 2
    assert manifest["hosts"]["dave"]["addresses"] == {}  # it has no link, and no network
    shaped = {link["direction"]: link for link in manifest["links"]}
    assert shaped["alice->bob"]["mechanism"]["delay_jitter_rate"] == "none"
    slow = shaped["bob->carol"]
    # With netem where the kernel has it; where not, by chitcpd, and the manifest says why.
    assert slow["mechanism"]["delay_jitter_rate"] == "netem" or "sch_netem" in slow["why"]
    clients = {packet.src for packet in packets(bench.latest / "hosts" / "bob" / "wire.pcap")}
    assert len(clients) == 4


LOOK = """
import json, os, socket
from chitcpd import ctl
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
def works(what):
    try:
        what()
    except OSError:
        return False
    return True
print(json.dumps({
    "interfaces": os.listdir("/sys/class/net"),
    "capabilities": [status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no_new_privileges": status["NoNewPrivs"],
    "user": [os.getuid(), os.getgid()],
    "writes_root": works(lambda: open("/x", "w")),
    "writes_socket_directory": works(lambda: open("/run/chitcp/x", "w")),
    "writes_work": works(lambda: open("x", "w")),
    "writes_tmp": works(lambda: open("/tmp/x", "w")),
    "host_is_reached": works(lambda: socket.create_connection((os.environ["PEER"], 23300), 1)),
    "sockets": os.listdir("/run/chitcp"),
    "changes_links": works(lambda: ctl.request(os.environ["CHITCPD_SOCK"], "links", {"links": []})),
    "engine_socket": os.path.exists("/var/run/docker.sock"),
}))
"""


def test_an_application_has_no_way_around_the_tcp_under_study(bench: Bench) -> None:
    apps = {
        "look": {"host": "alice", "run": ["python", "-c", LOOK], "env": {"PEER": "10.213.0.3"}, "expect": {"exit": 0}}
    }
    lab = {"name": "look", "hosts": {"alice": {}, "bob": {}}, "links": [{"endpoints": ["alice", "bob"]}], "apps": apps}
    command = bench.run(bench.topology(json.dumps(lab)))
    assert command.status == 0, command.output
    seen = json.loads((bench.latest / "apps" / "look" / "stdout").read_text())
    assert seen == {
        "interfaces": ["lo"],
        "capabilities": ["0000000000000000"] * 5,
        "no_new_privileges": "1",
        "user": [23300, 23300],
        "writes_root": False,
        "writes_socket_directory": False,
        "writes_work": True,
        "writes_tmp": True,
        "host_is_reached": False,
        "sockets": ["chitcpd.sock"],
        "changes_links": False,
        "engine_socket": False,
    }


def test_chitcpd_itself_has_no_rights_either(bench: Bench) -> None:
    lab = {"name": "rights", "hosts": {"alice": {}, "bob": {}}, "links": [{"endpoints": ["alice", "bob"]}]}
    bench.topology(json.dumps(lab))
    assert bench.command("up", "lab.yaml", "--backend", "docker", "--name", bench.lab).status == 0
    container = bench.client.containers.get(f"chitcp-{bench.lab}.host-alice")
    daemon = "for p in /proc/[0-9]*; do case $(cat $p/cmdline) in *bin/chitcpd*--trace*) cat $p/status;; esac; done"
    output = container.exec_run(["sh", "-c", daemon], user="chitcp").output
    assert isinstance(output, bytes)
    status = output.decode()
    assert re.findall(r"^(Cap(?:Inh|Prm|Eff|Amb)):\t(0+)$", status, re.MULTILINE)
    assert not re.search(r"^Cap(?:Inh|Prm|Eff|Amb):\t0*[1-9a-f]", status, re.MULTILINE)
    assert re.search(r"^Uid:\t23300\t23300", status, re.MULTILINE)
    setuid = "find / -xdev -type f -perm /6000 2>/dev/null"
    assert container.exec_run(["sh", "-c", setuid], user="root").output == b""
