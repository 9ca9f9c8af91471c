"""The pytest plugin: pytest runs tests that run labs, on the local backend."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.backends import local, processes
from testbed.backends.local_lab import LABEL
from tests.testbed.conftest import PROJECT

pytest_plugins = ["pytester"]

CLIENT = '[python, -m, chisocket.apps.echo, send, "bob:7", "hi there"]'
ECHO = f"""
name: echo
hosts: {{alice: {{}}, bob: {{}}}}
links: [{{endpoints: [alice, bob]}}]
capture: {{wire: false}}
apps:
  server: {{host: bob, run: [python, -m, chisocket.apps.echo, serve, --port, "7"], ready: {{listening: 7}}}}
  client:
    host: alice
    run: {CLIENT}
    needs: [server]
    expect: {{exit: 0}}
    timeout: 60s
checks: [{{resets: {{app: client, max: 0}}}}]
"""
FAILING = ECHO.replace("echo, send", "echo, sent")
ONE_TEST = "def test_it(testbed):\n    assert testbed.run('echo.yaml').passed\n"


@pytest.fixture(autouse=True)
def labs(pytester: pytest.Pytester, own_state: Path) -> Path:
    """The state directory; and in the directory of the inner tests echo.yaml and failing.yaml."""
    (pytester.path / "echo.yaml").write_text(ECHO)
    (pytester.path / "failing.yaml").write_text(FAILING)
    return own_state


def run(pytester: pytest.Pytester, *arguments: str, **passed: int) -> pytest.RunResult:
    """Run the inner tests; see that so many have passed, failed ..., and that no lab is left."""
    result = pytester.runpytest_subprocess("--strict-markers", "--testbed-backend=local", *arguments)
    result.assert_outcomes(**passed)
    assert local.LocalBackend().labs() == []
    return result


def artefacts() -> list[str]:
    return sorted(str(path) for path in Path("testbed-artefacts").glob("*/*"))


def test_a_run_hands_out_all_that_it_left(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        def test_it(testbed):
            run = testbed.run("echo.yaml", seed=3)
            assert (run.passed, run.verdict, run.status) == (True, "passed", 0)
            assert (run.manifest["seed"], run.manifest["backend"]["name"]) == (3, "local")
            assert (run.folder / "manifest.json").is_file()

            client = run.app("client")
            assert (client.exit, client.ended) == (0, "by itself")
            assert client.stdout == "hi there\\n"
            assert client.stderr == ""
            assert 0 < client.seconds < 60
            assert client.files.is_dir()
            assert run.app("server").ended == "stopped"

            alice = run.host("alice")
            assert "SYN_SENT" in [event["to"] for event in alice.trace if event["event"] == "state"]
            assert alice.log
            assert alice.segments.stat().st_size > 100
            assert not alice.wire.exists()

            assert run.check("exit client").ok
            assert run.check("resets client").message == "0 resets, expected at most 0"
            for ask, names in (run.app, "server, client"), (run.host, "alice, bob"), (run.check, "exit client"):
                with pytest.raises(LookupError, match=names):
                    ask("carol")
    """)
    run(pytester, passed=1)
    assert artefacts() == []


def test_the_folders_of_a_failed_test_are_kept_and_named(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.fixture
        def late(testbed):
            yield
            assert (testbed.of_the_test.folder / "manifest.json").is_file()

        @pytest.mark.parametrize("seed", [1])
        def test_it(testbed, late, seed):
            assert testbed.run("echo.yaml").passed
            testbed.of_the_test = testbed.run("failing.yaml", seed=seed)
            assert testbed.of_the_test.passed
    """)
    result = run(pytester, failed=1)
    first, second = artefacts()
    pattern = r"testbed-artefacts/test_the_folders.*\.py-test_it-1-[0-9a-f]{8}/"
    assert re.fullmatch(pattern + "1-echo", first)
    assert re.fullmatch(pattern + "2-echo", second)
    assert (Path(second) / "hosts" / "alice" / "trace.jsonl").is_file()
    result.stdout.fnmatch_lines(
        [
            "*assert False*",
            "*where False = <Run pytest-*: failed: exit client>.passed*",
            f"run folder: {Path.cwd() / first}",
            f"run folder: {Path.cwd() / second}",
            "FAIL exit client: client ended with status 2, expected 0",
            "the end of the standard error of client:",
            "  *invalid choice: 'sent'*",
        ]
    )


def test_what_passes_when_it_runs_again_leaves_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(ONE_TEST)
    Path("echo.yaml").write_text(FAILING)
    run(pytester, failed=1)
    assert len(artefacts()) == 1
    Path("echo.yaml").write_text(ECHO)
    run(pytester, passed=1)
    assert artefacts() == []


def test_an_expected_failure_is_none(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n\n@pytest.mark.xfail\n" + ONE_TEST.replace("echo.yaml", "failing.yaml"))
    run(pytester, xfailed=1)
    assert artefacts() == []


def test_folders_are_kept_where_that_is_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_keep=ONE_TEST)
    run(pytester, "--testbed-keep", passed=1)
    assert artefacts() == ["testbed-artefacts/test_keep.py-test_it/1-echo"]


def test_a_topology_is_found_beside_the_test_in_topologies_or_here(pytester: pytest.Pytester) -> None:
    for directory, name in ("inner", "beside"), ("topologies", "below"), ("elsewhere", "here"):
        Path(directory).mkdir()
        Path(directory, f"{name}.yaml").write_text("name: Wrong\n")
    Path("inner/test_places.py").write_text("""
import pytest

@pytest.mark.parametrize("name", ["beside", "below", "here", "nowhere"])
def test_it(testbed, name, monkeypatch):
    monkeypatch.chdir("elsewhere")
    testbed.run(f"{name}.yaml")
""")
    said = run(pytester, failed=4).stdout.str()
    assert f"{Path.cwd()}/inner/beside.yaml:1:7: name: found Wrong" in said
    assert f"{Path.cwd()}/topologies/below.yaml:1:7: name: found Wrong" in said
    assert f"{Path.cwd()}/elsewhere/here.yaml:1:7: name: found Wrong" in said
    assert f"there is no topology nowhere.yaml in {Path.cwd()}/inner, {Path.cwd()}, {Path.cwd()}/topologies," in said
    assert "During handling" not in said
    assert "pytest_plugin.py" not in said


def test_which_backend(pytester: pytest.Pytester) -> None:
    """What run is given stands over the marker, that over the option. One that was asked for is never skipped."""
    pytester.makepyfile("""
        import pytest

        pytestmark = pytest.mark.testbed(backend="marked")

        @pytest.mark.parametrize("given", [None, "given"])
        def test_it(testbed, given):
            testbed.run("echo.yaml", backend=given)
    """)
    said = run(pytester, failed=2).stdout.str()
    assert "there is no backend 'marked', there are docker, local" in said
    assert "there is no backend 'given', there are docker, local" in said


def test_without_any_backend_a_test_is_skipped_with_the_reason(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(ONE_TEST)
    monkeypatch.setenv("CHITCPD_PORT", "nonsense")  # so that local can't work
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    skipped = pytester.runpytest_subprocess("-rs")
    skipped.assert_outcomes(skipped=1)
    skipped.stdout.fnmatch_lines(["SKIPPED*no lab can run here: docker can't be used: no Docker engine answers*"])
    failed = pytester.runpytest_subprocess("--testbed-backend=local")
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(["backend local: CHITCPD_PORT is 'nonsense'*"])


def test_a_lab_that_can_not_be_built_fails_the_test(pytester: pytest.Pytester) -> None:
    """No skip: most often it is somebody's own TCP that does not load."""
    Path("own.py").write_text("import no_such_module\n")
    Path("echo.yaml").write_text(ECHO.replace("alice: {}", "alice: {tcp: {implementation: ./own.py}}"))
    pytester.makepyfile(ONE_TEST)
    said = run(pytester, failed=1).stdout.str()
    assert "chitcpd of alice ended with status" in said
    assert "no_such_module" in said
    assert "During handling" not in said


def test_two_workers_run_two_labs_at_the_same_time(pytester: pytest.Pytester) -> None:
    """Each client waits for the other at a FIFO: neither lab can end before the other is up."""
    os.mkfifo("meeting")
    meeting = Path("meeting").absolute()
    Path("one.yaml").write_text(ECHO.replace(CLIENT, f"[sh, -c, 'echo here >{meeting}']"))
    Path("two.yaml").write_text(ECHO.replace(CLIENT, f"[cat, '{meeting}']"))
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("name", ["one", "two"])
        def test_it(testbed, name):
            run = testbed.run(f"{name}.yaml")
            assert run.passed, run.verdict
    """)
    run(pytester, "-n2", passed=2)


def test_ctrl_c_takes_the_lab_down_and_ends_pytest(pytester: pytest.Pytester, labs: Path) -> None:
    Path("echo.yaml").write_text(ECHO.replace(CLIENT, '[sleep, "600"]'))
    pytester.makepyfile(ONE_TEST)
    command = [sys.executable, "-u", "-m", "pytest", "-s", "--testbed-backend=local"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as inner:
        assert inner.stdout is not None
        for line in inner.stdout:
            if line == "waiting for client\n":
                inner.send_signal(signal.SIGINT)
                break
        rest = inner.stdout.read()
    assert inner.returncode == pytest.ExitCode.INTERRUPTED, rest
    assert "Exit: interrupted by SIGINT" in rest
    assert processes.with_environment(LABEL, str(labs)) == []


def test_a_test_that_takes_too_long_leaves_no_lab(pytester: pytest.Pytester, labs: Path) -> None:
    Path("echo.yaml").write_text(ECHO.replace(CLIENT, '[sleep, "600"]'))
    pytester.makepyfile(ONE_TEST)
    run(pytester, "--timeout=3", "--timeout-method=signal", failed=1)
    assert processes.with_environment(LABEL, str(labs)) == []


def test_the_example_of_the_documentation_works(pytester: pytest.Pytester) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (PROJECT / "docs" / "pytest.md").read_text(), re.DOTALL)
    shutil.copytree(PROJECT / "topologies", "topologies")
    pytester.makepyfile(example)
    run(pytester, passed=2)


def test_it_costs_nothing_where_no_test_asks_for_a_lab(pytester: pytest.Pytester) -> None:
    """The plugin is imported in every session; the testbed itself, and what that needs, is not."""
    pytester.makepyfile("""
        import sys

        def test_it():
            ours = {name for name in sys.modules if name.partition(".")[0] in ("testbed", "chitcpd", "chisocket")}
            assert ours == {"testbed", "testbed.pytest_plugin"}
            assert not {"click", "docker", "pydantic", "rich", "yaml"} & set(sys.modules)
    """)
    run(pytester, "-p", "no:hypothesispytest", passed=1)


def test_a_simulation_is_the_same_in_each_test(pytester: pytest.Pytester) -> None:
    """Also after one that was cut off in its midst."""
    pytester.makepyfile("""
        import pytest

        def times(testbed):
            return [event["t"] for event in testbed.run("echo.yaml", backend="sim").host("bob").trace]

        seen = []

        @pytest.mark.timeout(0.5)
        def test_it_is_cut_off(testbed, monkeypatch):
            monkeypatch.setattr("chitcpd.sim.Process.resume", lambda self, _=None: [None for _ in iter(int, 1)])
            testbed.run("echo.yaml", backend="sim")

        @pytest.mark.parametrize("again", range(2))
        def test_it(testbed, again):
            seen.append(times(testbed))
            assert seen[0] == seen[-1] != []
    """)
    run(pytester, "-p", "no:xdist", "--timeout-method=signal", passed=2, failed=1)
    assert not list((Path(os.environ["XDG_RUNTIME_DIR"]) / "chitcp" / "sim").iterdir())
