"""What a run says of a TCP that has raised."""

from __future__ import annotations

from pathlib import Path

from testbed.tcp_faults import tcp_faults

FINE = "[18:54:46.343425751]          chitcpd chitcpd 0.1.0, TCP mine.py: listening\n"
FAULT = """\
[18:54:46.931325436]     tcp-socket-1 [S1] fault in the TCP, connection reset:
Traceback (most recent call last):
  File "chitcpd/driver.py", line 483, in _ask
    return call(*arguments)
  File "/x/implementation.py", line 5, in send
    return self.nonsense(data)
AttributeError: 'Mine' object has no attribute 'nonsense'

"""


def log(directory: Path, host: str, text: str, *, noise: bytes = b"") -> None:
    (directory / "hosts" / host).mkdir(parents=True)
    (directory / "hosts" / host / "chitcpd.log").write_bytes(text.encode() + noise)


def test_the_first_fault_is_told_and_how_many_there_were(tmp_path: Path) -> None:
    log(tmp_path, "alice", FINE + FAULT)
    log(tmp_path, "bob", FINE)
    log(tmp_path, "carol", FAULT + FINE + FAULT.replace("line 5", "line 6"))
    what = "line 5, in send: AttributeError: 'Mine' object has no attribute 'nonsense'"
    assert tcp_faults(tmp_path) == [
        f"the TCP of alice has a fault: {what}; see hosts/alice/chitcpd.log",
        f"the TCP of carol has a fault: {what}, and 1 more; see hosts/carol/chitcpd.log",
    ]


def test_of_a_chain_the_last_is_told_and_of_a_message_its_first_line(tmp_path: Path) -> None:
    chain = FAULT + "The above exception was the direct cause of the following exception:\n\n"
    chain += 'Traceback (most recent call last):\n  File "mine.py", line 9, in send\n    raise X from y\n'
    log(tmp_path, "alice", FINE + chain + "ValueError: first\nsecond line\n\n" + FINE + "Error: of something else\n")
    assert tcp_faults(tmp_path) == [
        "the TCP of alice has a fault: line 9, in send: ValueError: first; see hosts/alice/chitcpd.log"
    ]


def test_a_log_that_is_cut_or_no_text_is_read_all_the_same(tmp_path: Path) -> None:
    log(tmp_path, "alice", FAULT[: FAULT.index("  File")], noise=b"\xff" * 1000)
    [told] = tcp_faults(tmp_path)
    assert told.startswith("the TCP of alice has a fault: ")
    assert len(told) < 500
