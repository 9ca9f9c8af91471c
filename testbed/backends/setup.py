"""What a host's container does before, beside and after its chitcpd, as one shell script. Pure.

It runs as root, with the few rights that tc and tcpdump need; chitcpd runs as another user, and none of them. So a host
is up after one start, without a command that would have to be run in it afterwards. On its standard output it tells in
lines of JSON what has come of the shaping and of the capture; chitcpd adds that it is ready, and what its probes found.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chitcpd.faults import Shape
from testbed import shaping
from testbed.plan import HostPlan, Interface, Underlay
from testbed.unavailable import Unavailable

DATA = "/var/lib/chitcp"
SOCKET = "/run/chitcp/chitcpd.sock"
SEGMENTS, TRACE, WIRE = f"{DATA}/segments.pcap", f"{DATA}/trace.jsonl", f"{DATA}/wire.pcap"
AGAIN, PID = f"{DATA}/.again", "/run/chitcpd.pid"
OF_NETEM, OF_CHITCPD = "LINKS_IF_NETEM", "LINKS_IF_NOT"  # in the environment: what `--links` is in either case
STAND_STILL = {"pause": f"kill -STOP $(cat {PID})", "resume": f"kill -CONT $(cat {PID})"}  # for chitcpd's user
# For chitcpd's user: returns when the old one is gone, so that who answers then is the new one.
KILL_TO_BEGIN_AGAIN = f"""\
daemon=$(cat {PID})
touch {AGAIN}
kill -KILL $daemon
while [ -d /proc/$daemon ]; do sleep 0.01; done
"""
ADDRESSES = "ip -json -4 address show"  # in one line
# For root: takes the lines of `reshape` and `show`. It goes on, for to start a tc takes its time when a change is due.
TC = ("sh", "-c", "exec tc -json -force -batch - 2>&1")
_SHARES = {"loss-random": "loss", "duplicate": "duplicate", "reorder": "reorder", "corrupt": "corrupt"}  # of tc
READY_WITHIN = 20  # seconds until a chitcpd answers; long, because a busy machine starts Python slowly

# The real connections are to be no slower than the link: neither as they start nor after a pause.
SYSCTLS = {"net.ipv4.tcp_slow_start_after_idle": "0", "net.ipv4.tcp_no_metrics_save": "1"}
_WINDOW = "initcwnd 1000 initrwnd 1000"  # segments

# Each packet is written when it passes (`-U`, immediate), so that nothing is lost when the capture is stopped. Offloads
# are off: no packet is longer than 1600 bytes, and many fit the kernel's buffer of 8 MiB.
_TCPDUMP = f"tcpdump -i any -n -p -U --immediate-mode -s 1600 -B 8192 -Z root -w {WIRE} tcp port 23300"

# `exec`: what runs in the background is chitcpd itself, and not a shell of root's that waits for it: chitcpd's user may
# send it signals, and nobody else here.
_HEAD = """\
as_chitcp() { exec setpriv --reuid chitcp --regid chitcp --init-groups --no-new-privs "$@"; }
plain() { printf %s "$1" | tr '\\n' ' ' | tr -cd '[:alnum:] .,:;/_()=-'; }
netem=yes why= dump=
devices=$(ip -o -4 address show)
"""
# Offloads off: netem would delay and count bundles of up to 64 kB, and captures would show wrong checksums.
_INTERFACES = f"""\
while read -r _ device _ address _; do
  [ "$device" != lo ] || continue
  ethtool -K "$device" tso off gso off gro off tx off >/dev/null 2>&1
  case $address in
{{netems}}  esac
done <<DEVICES
$devices
DEVICES
ip route show proto kernel | sed 's/^/route change /; s/$/ {_WINDOW}/' | ip -batch -
"""
_NETEM = "  {address}/*) said=$(tc qdisc replace dev $device root {netem} 2>&1) || {{ netem=no; why=$said; }} ;;\n"
# All of them, or none: chitcpd is told one thing.
_TELL_SHAPED = """\
[ $netem = yes ] || for device in $(echo "$devices" | cut -d' ' -f2); do tc qdisc del dev $device root; done 2>/dev/null
printf '{"name": "%s", "netem": "%s", "why": "%s", "devices": %s, "qdiscs": %s}\\n' \\
  {name} $netem "$(plain "$why")" "$(ip -json -4 address show)" "$(tc -json qdisc show)"
"""
_CAPTURE = f"""\
[ ! -e {WIRE} ] || mv {WIRE} {DATA}/wire.$(date +%s).pcap  # the container is started anew
rm -f /run/heard
mkfifo /run/heard
{_TCPDUMP} 2>/run/heard & dump=$!
exec 3</run/heard
heard=
while read -r line <&3; do heard=$line; case $line in *"listening on"*) break; esac; done
case $heard in *"listening on"*) heard=; esac
printf '{{"name": "%s", "wire": "%s"}}\\n' {{name}} "$(plain "$heard")"
"""
_DAEMON = f"""\
if [ $netem = yes ]; then links=${OF_NETEM}; else links=${OF_CHITCPD}; fi
trap '(as_chitcp sh -c "kill -TERM $daemon")' TERM INT  # the image has no other kill than the shell's
append=
[ ! -e {TRACE} ] || append=--append  # the container is started anew
while :; do
  as_chitcp chitcpd {{options}} --links "$links" $append & daemon=$!
  echo $daemon >{PID}
  while :; do wait $daemon; status=$?; [ -d /proc/$daemon ] || break; done
  [ -e {AGAIN} ] || break
  rm -f {AGAIN}
  append=--append
done
"""
_BESIDE = f"""\
found=
for _ in $(seq {READY_WITHIN * 20}); do
  if ss -Hltn 'sport = :23300' | grep -q . && [ -S {SOCKET} ]; then
    chmod 666 {SOCKET}
    printf '{{"name": "%s", "ready": "?"}}\\n' {{name}}
    found=yes
    break
  fi
  sleep 0.05
done
[ "$found" ] || exit 1
trap 'kill $waiting' TERM INT
sleep infinity & waiting=$!
wait $waiting
status=0
"""
_END = """\
[ -z "$dump" ] || { kill $dump; wait $dump; }
exit $status
"""


def script(node: HostPlan, options: Sequence[str] | None, *, capture_wire: bool) -> str:
    """The whole of it; `options`: of chitcpd, or None if another image's chitcpd runs beside this."""
    name = shlex.quote(node.name)
    netems = [_netem(end) for end in node.interfaces if shaping.has_work(end.shape, end.underlay)]
    parts = [_HEAD, _INTERFACES.replace("{netems}", "".join(netems))]
    if node.ways:
        parts.append("ip -batch - <<ROUTES\n" + "\n".join(routes(node)) + "\nROUTES\n")
    if netems:
        parts.append(_TELL_SHAPED.replace("{name}", name))
    if capture_wire:
        parts.append(_CAPTURE.replace("{name}", name))
    if options is None:
        parts.append(_BESIDE.replace("{name}", name))
    else:
        parts.append(_DAEMON.replace("{options}", shlex.join(options)))
    return "".join([*parts, _END])


def routes(node: HostPlan) -> list[str]:
    """What to tell `ip`, each: the ways of a host, for its kernel."""
    return [f"route replace {subnet} via {way.gateway} {_WINDOW}" for way in node.ways for subnet in way.subnets]


def _netem(interface: Interface) -> str:
    netem = shlex.join(shaping.netem(interface.shape, interface.underlay, mtu=interface.mtu))
    return _NETEM.format(address=interface.address, netem=netem)


def devices(entries: list[dict[str, Any]]) -> dict[str, str]:
    """Of each address the interface that has it, by what `ADDRESSES` prints."""
    return {address["local"]: entry["ifname"] for entry in entries if entry for address in entry["addr_info"]}


def reshape(device: str, interface: Interface, shape: Shape, underlay: Underlay) -> str:
    """Lines for `TC` that change what netem does, and ask for what `answer` reads."""
    netem = shlex.join(shaping.netem(shape, underlay, mtu=interface.mtu))
    has_work = shaping.has_work(shape, underlay)
    change = f"replace dev {device} root {netem}" if has_work else f"del dev {device} root"
    return f"qdisc {change}\n{show(device)}"


def show(device: str) -> str:
    """A line for `TC` that asks for what `answer` reads."""
    return f"qdisc show dev {device}"


def answer(said: str) -> tuple[list[dict[str, Any]], str]:
    """(the qdiscs of the device that was shown, what was wrong with a change before; "": it was done)."""
    *others, found = said.splitlines()
    wrong = [line for line in others if not line.startswith("Command failed")]
    failed = len(wrong) < len(others)
    return json.loads(found), (" ".join(wrong) or "tc failed without a word") if failed else ""


@dataclass(frozen=True, slots=True)
class Shaped:
    """What has come of the shaping of one host."""

    by_netem: bool
    why: str = ""  # not


def shaped(node: HostPlan, told: dict[str, Any]) -> Shaped:
    """From what the script tells. Raises Unavailable if what tc reads back is not what was asked for."""
    if told["netem"] != "yes":
        return Shaped(False, why_no_netem(told["why"]))
    device = devices(told["devices"])
    qdisc = {entry["dev"]: entry for entry in told["qdiscs"] if entry["kind"] == "netem"}
    for interface in node.interfaces:
        if shaping.has_work(interface.shape, interface.underlay):
            compare(interface, interface.shape, interface.underlay, qdisc.get(device[interface.address], {}))
    return Shaped(True)


def compare(interface: Interface, shape: Shape, underlay: Underlay, qdisc: dict[str, Any]) -> None:
    """Raise Unavailable if what tc reads back of a device is not what was asked for."""
    options = qdisc.get("options", {})
    delay, rate = options.get("delay", {}), options.get("rate", {}).get("rate", 0) * 8
    asked_rate = shaping.netem_rate(shape)
    shares = {key: getattr(underlay, key.removesuffix("-random")) for key in _SHARES}
    exact = (  # as far as the kernel counts: in microseconds, whole bytes per second, 2^-32
        options.get("limit") == shaping.netem_limit(shape, mtu=interface.mtu)
        and math.isclose(shape.delay, delay.get("delay", 0), abs_tol=2e-6)
        and math.isclose(shape.jitter, delay.get("jitter", 0), abs_tol=2e-6)
        and math.isclose(asked_rate or rate, rate, abs_tol=8)
        and all(
            math.isclose(shares[key], options.get(key, {}).get(inner, 0), abs_tol=1e-6)
            for key, inner in _SHARES.items()
        )
    )
    if not exact:
        raise Unavailable(
            f"the kernel does not shape link {interface.link} as asked: tc reads back {json.dumps(options)}.",
            "Use --backend local, where chitcpd shapes, and please report this.",
        )


def shown(qdiscs: list[dict[str, Any]]) -> tuple[Shape, Underlay]:
    """What netem does at a device, by what tc says of it."""
    none: dict[str, Any] = {}
    netem = next((qdisc for qdisc in qdiscs if qdisc["kind"] == "netem"), none)
    options = netem.get("options", {})
    delay, rate = options.get("delay", {}), options.get("rate", {}).get("rate", 0) * 8
    shape = Shape(
        delay=round(delay.get("delay", 0.0), 6),
        jitter=round(delay.get("jitter", 0.0), 6),
        rate=shaping.rate_of_netem(rate) if rate else None,
    )
    shares = {key: options.get(key, {}).get(inner, 0.0) for key, inner in _SHARES.items()}
    return shape, Underlay(**{key.removesuffix("-random"): float(f"{share:.6g}") for key, share in shares.items()})


def why_no_netem(said: str) -> str:
    """The reason for a person, from what tc has said."""
    reason = " ".join(said.split()) or "tc failed without a word"
    unknown = ("qdisc kind is unknown", "No such file or directory")
    return f"this kernel has no sch_netem ({reason})" if any(word in reason for word in unknown) else reason
