"""The ledger: each requirement of RFC 9293 appendix B, where it is implemented, and the tests that show it.

    python -m tests.tcp.ledger > docs/rfc9293.md

The requirements stand here; the tests are found by their marks, `@pytest.mark.rfc9293("MUST-12")`, in the source.
tests/tcp/test_ledger.py holds the document to be up to date and the ledger to be complete.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
KINDS = ("MUST", "SHLD", "MAY", "REC")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A line of appendix B, in our words."""

    code: str
    section: str
    gist: str
    where: str = ""  # "file.py:name", in chitcpd/, several by a space
    reason: str = ""  # why not, or why in another way
    lower: bool = False  # it is about IP, ICMP or an interface below TCP, which the lab doesn't have


R = Requirement
_URGENT = (
    "Deviation: urgent data is delivered in line, without notice, and never sent. RFC 6093 advises applications "
    "against it, and chisocket has no call for it"
)
_ICMP = "There is no ICMP. A daemon that can't be reached is told as `Driver.unreachable`"
_IP_OPTIONS = "There are no IP options: a segment travels in a real TCP connection between daemons"
_DIFFSERV = "There is no IP header that could carry it"
_ADDRESSES = "A daemon takes segments only from peers that it has a link to, at addresses of its own"
_EACH = "Each connection has its own Config; a daemon gives all of its connections the same"
_SOFT_ERRORS = (
    "Soft errors come from ICMP, which isn't here, and from R1; hard ones end the connection, and each call after "
    "that has their errno. The trace shows every retransmission"
)

GROUPS = {  # as appendix B has them, in its order
    "PUSH flag": [
        R("MAY-16", "3.9.1.2", "data of several SENDs may be sent together", "tcp/connection.py:Connection._sendable"),
        R("SHLD-27", "3.9.1.2", "PSH is no mark of a record", "tcp/connection.py:Connection._sendable"),
        R(
            "MAY-15",
            "3.9.1.2",
            "SEND may have a PUSH flag",
            reason="It has none, as POSIX; so MUST-60 and MUST-61 hold",
        ),
        R("MUST-60", "3.9.1.2", "without PUSH: buffer nothing indefinitely", "tcp/connection.py:Connection._output"),
        R("MUST-61", "3.9.1.2", "without PUSH: PSH in the last segment", "tcp/connection.py:Connection._transmit_new"),
        R("MAY-17", "3.9.1.3", "tell the application of PSH", reason="POSIX has no way to: what has come can be read"),
        R("SHLD-28", "3.9.1.2", "send the largest segment possible", "tcp/connection.py:Connection._sendable"),
    ],
    "Window": [
        R("MUST-1", "3.1", "the window has no sign", "tcp/connection.py:Connection._set_window tcp/wire.py:decode"),
        R("REC-1", "3.1", "windows in 32 bits", "tcp/connection.py:Connection._set_window"),
        R("SHLD-14", "3.8.6", "don't shrink the window", "tcp/connection.py:Connection._emit_with_ack"),
        R("SHLD-15", "3.8.6", "no new data into a shrunk window", "tcp/connection.py:Connection._usable_window"),
        R("SHLD-16", "3.8.6", "send old data again within it", "tcp/connection.py:Connection._retransmission_timeout"),
        R("SHLD-17", "3.8.6", "don't give up for data beyond its edge", "tcp/connection.py:Connection._ack_arrives"),
        R("MUST-34", "3.8.6", "survive a window that shrinks", "tcp/connection.py:Connection._usable_window"),
        R("MAY-8", "3.8.6.1", "keep one's window closed", "tcp/connection.py:Connection._window_gain"),
        R("MUST-35", "3.8.6", "probe a window shrunk to zero", "tcp/connection.py:Connection._persist_timeout"),
        R("MUST-36", "3.8.6.1", "probe a closed window", "tcp/connection.py:Connection._persist_timeout"),
        R("SHLD-29", "3.8.6.1", "first after a retransmission time-out", "tcp/connection.py:Connection._output"),
        R("SHLD-30", "3.8.6.1", "then at growing intervals", "tcp/connection.py:Connection._persist_timeout"),
        R("MUST-37", "3.8.6.1", "for as long as the peer answers", "tcp/connection.py:Connection._persist_timeout"),
        R(
            "MAY-7",
            "3.8.6",
            "send old data again beyond the edge",
            "tcp/connection.py:Connection._retransmission_timeout",
        ),
        R(
            "MUST-66",
            "3.4",
            "heed RST (and URG) while one's window is closed",
            "tcp/connection.py:Connection._rest_of_unacceptable",
        ),
    ],
    "Urgent data": [
        R("MUST-30", "3.8.5", "support the urgent mechanism", reason=_URGENT),
        R("MUST-62", "3.8.5", "the pointer is behind the last urgent byte", reason=_URGENT),
        R("MUST-31", "3.8.5", "urgent data of any length", reason=_URGENT),
        R("MUST-32", "3.8.5", "tell the application of urgent data", reason=_URGENT),
        R("MUST-33", "3.8.5", "let it learn how much there is", reason=_URGENT),
        R("SHLD-13", "3.8.5", "new applications don't use it", reason="chisocket has no call for it"),
    ],
    "TCP options": [
        R("MUST-4", "3.1", "end of list, no-operation, MSS", "tcp/wire.py:_decode_options tcp/wire.py:encode_options"),
        R("MUST-5", "3.1", "options in any segment", "tcp/wire.py:_decode_options"),
        R("MUST-6", "3.1", "ignore unknown ones", "tcp/wire.py:_decode_options"),
        R("MUST-68", "3.1", "each has its length, but end and no-operation", "tcp/wire.py:encode_options"),
        R("MUST-7", "3.1", "survive an illegal length", "tcp/wire.py:_decode_options"),
        R("MUST-64", "3.2", "wherever they begin", "tcp/wire.py:_decode_options"),
        R(
            "MUST-14",
            "3.7.1",
            "send and heed the MSS option",
            "tcp/connection.py:Connection._emit_syn tcp/connection.py:Connection._effective_mss",
        ),
        R("SHLD-5", "3.7.1", "send it unless 536 (IPv6: 1220)", "tcp/connection.py:Connection._emit_syn"),
        R("MAY-3", "3.7.1", "send it always", "tcp/connection.py:Connection._emit_syn"),
        R(
            "MUST-15",
            "3.7.1",
            "without it assume 536 (IPv6: 1220)",
            "tcp/connection.py:Connection._effective_mss",
            "536 everywhere: the hosts of a lab have IPv4 addresses",
        ),
        R(
            "MUST-16",
            "3.7.1",
            "send no more than peer and link take",
            "tcp/connection.py:Connection._effective_mss",
            "Deviation: a peer that announces less than 64 bytes gets 64, or it could ask for a storm of segments",
        ),
        R(
            "SHLD-6",
            "3.7.3",
            "the smallest MTU counts",
            reason="A link has one MTU, known when it is opened",
            lower=True,
        ),
        R("MUST-65", "3.1", "the MSS option in a SYN only", "tcp/connection.py:Connection._options"),
        R("MUST-67", "3.7.1", "the MSS is what IP can reassemble, less 20", "driver.py:Driver._new", lower=True),
        R("MUST-69", "3.1", "padding is zero", "tcp/wire.py:encode_options", "Nothing comes after the last option"),
    ],
    "Checksum": [
        R("MUST-2", "3.1", "the sender makes the checksum", "tcp/wire.py:checksum"),
        R(
            "MUST-3",
            "3.1",
            "the receiver checks it",
            "tcp/wire.py:decode",
            "Deviation: zero means that there is none, for the C chiTCP sends that, until the peer has sent another",
        ),
    ],
    "Initial sequence number": [
        R("MUST-8", "3.4.1", "a clock of 4 µs moves it", "demux.py:Demux.initial_sequence_number"),
        R("SHLD-1", "3.4.1", "and a pseudo-random function", "demux.py:Demux.initial_sequence_number"),
        R("MUST-9", "3.4.1", "that nobody outside can compute", "demux.py:Demux.initial_sequence_number"),
    ],
    "Opening": [
        R("MUST-10", "3.5", "both may open at once", "tcp/connection.py:Connection._arrives_in_syn_sent"),
        R("MUST-11", "3.5", "SYN-RECEIVED knows where it came from", "tcp/connection.py:Connection._reset_arrives"),
        R(
            "MUST-41",
            "3.9.1.1",
            "a passive OPEN leaves others alone",
            "demux.py:Demux.check_bind driver.py:Driver.listen",
        ),
        R("MUST-42", "3.9.1.1", "LISTEN on a port that is being opened", "demux.py:Demux.check_bind"),
        R("MUST-44", "3.9.1.1", "ask IP for the address of a SYN", "driver.py:Driver.connect", lower=True),
        R("MUST-45", "3.9.1.1", "later: that of the connection", "driver.py:Driver._emit", lower=True),
        R("MUST-46", "3.9.1.1", "no OPEN to an invalid address", "driver.py:Driver.connect", lower=True),
        R("MUST-57", "3.9.2.3", "silence for a SYN to everybody", reason=_ADDRESSES, lower=True),
    ],
    "Closing": [
        R("SHLD-2", "3.5.3", "an RST may contain data", "tcp/connection.py:Connection._reset_arrives"),
        R("MUST-12", "3.6", "tell the application end from abort", "tcp/api.py:TcpConnection._fail"),
        R("MAY-1", "3.6.1", "CLOSE that ends receiving too", "driver.py:Driver.release"),
        R("SHLD-3", "3.6.1", "then RST for data that is lost", "driver.py:Driver._settle"),
        R("MUST-13", "3.6.1", "TIME-WAIT lasts two MSL", "tcp/connection.py:Connection._enter_time_wait"),
        R("MAY-2", "3.6.1", "a new SYN may end it", "tcp/connection.py:Connection._reopens"),
        R("SHLD-4", "3.6.1", "by its timestamp", "tcp/connection.py:Connection._reopens"),
    ],
    "Retransmission": [
        R(
            "MUST-19",
            "3.8.2",
            "backoff, slow start, congestion avoidance",
            "tcp/congestion.py:NewReno tcp/rto.py:RetransmissionTimeout.double",
            "Deviation: slow start counts all bytes that an ACK covers, and not a segment for each ACK",
        ),
        R("MAY-4", "3.8.1", "the same IP identification", reason="There is no IP header", lower=True),
        R(
            "MUST-18",
            "3.8.1",
            "RTO by RFC 6298, with Karn's algorithm",
            "tcp/rto.py:RetransmissionTimeout tcp/connection.py:Connection._take_round_trip",
        ),
    ],
    "Generating ACKs": [
        R("MUST-58", "3.10.7.4", "one ACK for several segments", "tcp/connection.py:Connection._acknowledge"),
        R(
            "SHLD-31",
            "3.10.7.4",
            "keep what is out of order",
            "tcp/receive.py:ReceiveBuffer.insert",
            "At most 1024 pieces with gaps between them: single bytes would take many times the window",
        ),
        R("MUST-59", "3.10.7.4", "process all that waits, then ACK", "tcp/receive.py:ReceiveBuffer.insert"),
        R("MAY-13", "3.10.7.4", "ACK what is out of order", "tcp/connection.py:Connection._take_text"),
        R("SHLD-18", "3.8.6.3", "delay ACKs", "tcp/connection.py:Connection._acknowledge"),
        R("MUST-40", "3.8.6.3", "by less than 0.5 s", "tcp/api.py:Config"),
        R(
            "SHLD-19",
            "3.8.6.3",
            "but not every second one",
            "tcp/connection.py:Connection._acknowledge driver.py:Driver._may_join",
            "What was joined is one, but not where somebody may count ACKs",
        ),
        R("MUST-39", "3.8.6.2.2", "no silly windows as a receiver", "tcp/connection.py:Connection._window_gain"),
    ],
    "Sending": [
        R("MUST-49", "3.9.2", "a TTL that can be set", reason="There is no IP header", lower=True),
        R("MUST-38", "3.8.6.2.1", "no silly windows as a sender", "tcp/connection.py:Connection._sendable"),
        R("SHLD-7", "3.7.4", "Nagle", "tcp/connection.py:Connection._sendable"),
        R("MUST-17", "3.7.4", "which can be turned off", "tcp/api.py:Config", _EACH),
    ],
    "Failures": [
        R(
            "MUST-20",
            "3.8.3",
            "give up after R2; at R1 tell IP",
            "tcp/connection.py:Connection._retransmission_timeout",
            "There is no IP layer that could look for another way at R1",
        ),
        R("MUST-21", "3.8.3", "R2 can be set", "tcp/api.py:Config", "`retries`, `user_timeout`"),
        R("SHLD-9", "3.8.3", "tell the application at R1", reason=_SOFT_ERRORS),
        R(
            "SHLD-10",
            "3.8.3",
            "R1 is at least 3 retransmissions",
            "tcp/api.py:Config",
            "R1 has no effect, R2 is above it",
        ),
        R("SHLD-11", "3.8.3", "R2 is at least 100 s", "tcp/api.py:Config"),
        R("MUST-22", "3.8.3", "the same for SYNs", "tcp/connection.py:Connection._retransmission_timeout"),
        R("MUST-23", "3.8.3", "R2 for a SYN is at least 3 minutes", "tcp/api.py:Config"),
    ],
    "Keep-alive": [
        R("MAY-5", "3.8.4", "keep-alive", "tcp/connection.py:Connection._keep_alive_timeout"),
        R("MUST-24", "3.8.4", "on or off for each connection", "tcp/api.py:Config", _EACH),
        R("MUST-25", "3.8.4", "off by default", "tcp/api.py:Config"),
        R("MUST-26", "3.8.4", "only when idle", "tcp/connection.py:Connection._stay_alive"),
        R("MUST-27", "3.8.4", "the interval can be set", "tcp/api.py:Config"),
        R(
            "MUST-28",
            "3.8.4",
            "by default at least two hours",
            "tcp/api.py:Config",
            "It has no default: who turns it on says the interval",
        ),
        R(
            "MUST-29",
            "3.8.4",
            "no answer to one probe means nothing",
            "tcp/connection.py:Connection._keep_alive_timeout",
        ),
        R("SHLD-12", "3.8.4", "a probe has no data", "tcp/connection.py:Connection._keep_alive_timeout"),
        R("MAY-6", "3.8.4", "or a garbage byte", reason="Not needed: no TCP here lacks an answer to the other kind"),
    ],
    "IP options": [
        R("MUST-50", "3.9.2", "ignore unknown IP options", reason=_IP_OPTIONS, lower=True),
        R("MAY-10", "3.9.2", "IP timestamp", reason=_IP_OPTIONS, lower=True),
        R("MAY-11", "3.9.2", "IP record route", reason=_IP_OPTIONS, lower=True),
        R("MUST-51", "3.9.2.1", "source route: can be given", reason=_IP_OPTIONS, lower=True),
        R("MUST-52", "3.9.2.1", "and counts more than one received", reason=_IP_OPTIONS, lower=True),
        R("MUST-53", "3.9.2.1", "the received one is used to answer", reason=_IP_OPTIONS, lower=True),
        R("SHLD-24", "3.9.2.1", "a later one overrides", reason=_IP_OPTIONS, lower=True),
    ],
    "ICMP": [
        R("MUST-54", "3.9.2.2", "heed ICMP errors", reason=_ICMP, lower=True),
        R("SHLD-25", "3.9.2.2", "unreachable (0, 1, 5): tell the application", reason=_ICMP, lower=True),
        R("MUST-56", "3.9.2.2", "but don't abort", reason=_ICMP, lower=True),
        R("SHLD-26", "3.9.2.2", "unreachable (2 to 4): abort", reason=_ICMP, lower=True),
        R("MUST-55", "3.9.2.2", "source quench: discard", reason=_ICMP, lower=True),
    ],
    "Addresses": [
        R("MUST-63", "3.9.2.3", "ignore a SYN from an invalid address", reason=_ADDRESSES, lower=True),
    ],
    "Interface to the application": [
        R("MUST-47", "3.9.1.8", "report soft errors", reason=_SOFT_ERRORS),
        R("SHLD-20", "3.9.1.8", "which can be turned off", reason="None are reported, see MUST-47"),
        R("MUST-48", "3.9.1.9", "Diffserv can be set", reason=_DIFFSERV, lower=True),
        R("SHLD-22", "3.9.1.9", "and goes to IP unchanged", reason=_DIFFSERV, lower=True),
        R("SHLD-21", "3.9.1.9", "also later", reason=_DIFFSERV, lower=True),
        R("SHLD-23", "3.9.2", "though it is seldom changed", reason=_DIFFSERV, lower=True),
        R("MAY-9", "3.9.1.9", "tell the application of it", reason=_DIFFSERV, lower=True),
        R("MAY-14", "3.9.1.7", "FLUSH", reason="POSIX has none"),
        R("MUST-43", "3.9.1.1", "the application can choose its address", "driver.py:Driver.connect", lower=True),
    ],
    "The rest": [
        R(
            "MAY-12",
            "3.10.7.4",
            "RFC 5961",
            "tcp/connection.py:Connection._challenge tcp/connection.py:Connection._ack_arrives",
        ),
        R("SHLD-8", "3.8.2", "ECN", reason="Half of it are two bits of the IP header", lower=True),
        R("MAY-18", "3.8.2", "other congestion controls", "tcp/congestion.py:Cubic"),
    ],
}
REQUIREMENTS = [requirement for group in GROUPS.values() for requirement in group]

_HEAD = """\
# RFC 9293: what is required, where it is, and what shows it

Made by `python -m tests.tcp.ledger > docs/rfc9293.md`; don't edit it. The requirements are those of RFC 9293, appendix
B, in our words; the tests are found by their marks.
"""
_LOWER = """
TCP is judged here without a layer below: a lab's links carry segments, not IP packets. {must} MUST and {shld} SHLD are
about IP, ICMP or an interface (*below* in the tables); {must_left} MUST and {shld_left} SHLD apply. Where our links
have something of the kind, addresses and an MTU, it is done and tested all the same.

The tests in `conformance/` judge any TCP that speaks our contract; those in `unit/` the reference and what is around
it. **(not yet)** stands beside a test that the reference does not pass.
"""


@cache
def marked_tests() -> dict[str, list[str]]:
    """Which tests show which code: `folder/file.py::test`, in the order of the files."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for test, codes in _marks(ast.parse(path.read_text())):
            for code in codes:
                found[code].append(f"{path.relative_to(TESTS)}::{test}")
    return found


def _marks(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        outer = _codes(node.decorator_list) if isinstance(node, ast.ClassDef) else []
        for each in inside:
            if isinstance(each, ast.FunctionDef) and each.name.startswith("test_"):
                yield each.name, outer + _codes(each.decorator_list)


def _codes(decorators: list[ast.expr]) -> list[str]:
    calls = [
        node for node in decorators if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.rfc9293"
    ]
    return [str(ast.literal_eval(argument)) for call in calls for argument in call.args]


def document() -> str:
    """docs/rfc9293.md."""
    shown = marked_tests()
    lines = [_HEAD, *_figures(shown)]
    for title, group in GROUPS.items():
        lines += ["", f"## {title}", "", "| code | § | what | where | shown by |", "|---|---|---|---|---|"]
        lines += [_line(requirement, shown[requirement.code]) for requirement in group]
    return "\n".join(lines) + "\n"


def _line(requirement: Requirement, tests: list[str]) -> str:
    what = f"{requirement.gist} *(below)*" if requirement.lower else requirement.gist
    where = "<br>".join(_place(place) for place in requirement.where.split())
    notes = [_test(test) for test in tests] + ([f"{requirement.reason}."] if requirement.reason else [])
    return f"| {requirement.code} | {requirement.section} | {what} | {where} | {'<br>'.join(notes)} |"


def _place(place: str) -> str:
    file, _, name = place.partition(":")
    return f"[{file.rpartition('/')[2]}](../chitcpd/{file}): `{name.rpartition('.')[2]}`"


def _test(test: str) -> str:
    path, _, name = test.partition("::")
    return f"[{Path(path).name}](../tests/{path}): `{name}`"


def _figures(shown: dict[str, list[str]]) -> list[str]:
    lower = Counter(r.code.split("-")[0] for r in REQUIREMENTS if r.lower)
    total = Counter(r.code.split("-")[0] for r in REQUIREMENTS)
    lines = [
        "| | in appendix B | apply without a layer below | of these with a test | with a reason only |",
        "|---|---|---|---|---|",
    ]
    for kind in KINDS:
        applying = [r for r in REQUIREMENTS if r.code.startswith(f"{kind}-") and not r.lower]
        tested = sum(1 for r in applying if shown[r.code])
        lines.append(f"| {kind} | {total[kind]} | {len(applying)} | {tested} | {len(applying) - tested} |")
    text = _LOWER.format(
        must=lower["MUST"],
        shld=lower["SHLD"],
        must_left=total["MUST"] - lower["MUST"],
        shld_left=total["SHLD"] - lower["SHLD"],
    )
    return [*lines, text.rstrip("\n")]


if __name__ == "__main__":
    print(document(), end="")
