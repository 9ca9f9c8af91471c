"""Somebody's own TCP: how it is found, and what is said if it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chitcpd.loader import LoadError, load, try_out
from chitcpd.tcp.api import PROFILES, Config, TcpConnection
from chitcpd.tcp.connection import Connection

OWN = "from chitcpd.tcp.connection import Connection\n\n\nclass Mine(Connection):\n    pass\n"
EXPECTED = "expected one complete subclass of chitcpd.tcp.api.TcpConnection"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "my_tcp.py"


def refusal(name: object) -> str:
    with pytest.raises(LoadError) as error:
        load(str(name))
    return str(error.value)


class TestFound:
    def test_the_reference(self) -> None:
        assert load("reference") is Connection

    def test_in_a_module(self) -> None:
        assert load("chitcpd.tcp.connection:Connection") is Connection

    def test_in_a_file(self, file: Path) -> None:
        file.write_text(OWN)
        assert load(str(file)).__name__ == "Mine"  # what the file only imports is not meant

    def test_by_name_in_a_file(self, file: Path) -> None:
        file.write_text(OWN + "\n\nclass Other(Connection):\n    pass\n")
        assert load(f"{file}:Other").__name__ == "Other"

    def test_a_file_with_a_dataclass(self, file: Path) -> None:
        head = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        file.write_text(head + OWN + "\n\n@dataclass\nclass Extra:\n    count: int = 0\n")
        assert load(str(file)).__name__ == "Mine"

    def test_a_file_may_have_the_name_of_a_module(self, tmp_path: Path) -> None:
        file = tmp_path / "json.py"
        file.write_text(OWN)
        assert load(str(file)).__name__ == "Mine"
        import json as again

        assert again is json


class TestRefused:
    def test_no_such_file(self, file: Path) -> None:
        assert refusal(file) == f"{file}: no such file"

    def test_a_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / "tcp.py"
        folder.mkdir()
        assert refusal(folder) == f"{folder}: no such file"

    def test_no_such_module(self) -> None:
        assert refusal("no_such_tcp:Mine") == (
            "'no_such_tcp' is neither `reference`, nor a file ending in .py, nor a module that can be loaded: "
            "ModuleNotFoundError: No module named 'no_such_tcp'"
        )

    @pytest.mark.parametrize("name", ["", ":", ":Mine", ".", "..:Mine", "my tcp"])
    def test_nonsense(self, name: str) -> None:
        what = name.partition(":")[0]
        assert refusal(name) == f"{what!r} is neither `reference`, nor a file ending in .py, nor the name of a module"

    def test_a_module_that_fails(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(file.parent)
        file.write_text("1 / 0\n")
        assert refusal("my_tcp:Mine").endswith("nor a module that can be loaded: ZeroDivisionError: division by zero")

    def test_no_such_class(self, file: Path) -> None:
        file.write_text(OWN)
        assert refusal(f"{file}:Yours") == f"{file} has no Yours"

    def test_a_class_of_another_kind(self, file: Path) -> None:
        file.write_text("class Mine:\n    pass\n")
        assert refusal(f"{file}:Mine") == f"Mine in {file} is no subclass of chitcpd.tcp.api.TcpConnection"
        assert refusal(file) == f"{file} has no TCP; {EXPECTED}"

    def test_an_empty_file(self, file: Path) -> None:
        file.write_text("")
        assert refusal(file) == f"{file} has no TCP; {EXPECTED}"

    def test_two_classes(self, file: Path) -> None:
        file.write_text(OWN + "\n\nclass Other(Connection):\n    pass\n")
        assert refusal(file) == f"{file} has 2 TCPs (Mine, Other): say which, as {file}:NAME; {EXPECTED}"

    @pytest.mark.parametrize("suffix", ["", ":Mine"])
    def test_missing_methods(self, file: Path, suffix: str) -> None:
        methods = ["open", "send", "receive", "close", "segment_arrives", "at_eof", "readable"]
        lines = ["from chitcpd.tcp.api import TcpConnection", "class Mine(TcpConnection):"]
        file.write_text("\n".join(lines + [f"    def {name}(self, *_): ..." for name in methods]))
        assert refusal(f"{file}{suffix}") == (
            f"Mine in {file} does not define abort, timeout, writable, which chitcpd.tcp.api.TcpConnection asks for"
        )

    def test_a_syntax_error_is_said_with_its_line(self, file: Path) -> None:
        file.write_text(OWN + "    def send(self:\n")
        assert refusal(file) == f"{file} can't be loaded: SyntaxError: '(' was never closed (my_tcp.py, line 6)"

    def test_an_error_while_loading_is_said_with_its_line(self, file: Path) -> None:
        file.write_text("import math\n\n\ndef half(x):\n    return x / 0\n\n\nhalf(1)\n")
        assert refusal(file) == f"{file} can't be loaded: line 5: ZeroDivisionError: division by zero"

    def test_the_line_is_said_for_a_relative_path_too(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(file.parent)
        file.write_text("1 / 0\n")
        assert refusal("my_tcp.py") == "my_tcp.py can't be loaded: line 1: ZeroDivisionError: division by zero"

    def test_an_import_that_fails_is_said_with_its_line(self, file: Path) -> None:
        file.write_text("import math\nimport no_such_module\n")
        expected = f"{file} can't be loaded: line 2: ModuleNotFoundError: No module named 'no_such_module'"
        assert refusal(file) == expected

    def test_a_file_that_ends_the_program(self, file: Path) -> None:
        file.write_text("raise SystemExit(1)\n")
        assert refusal(file) == f"{file} can't be loaded: line 1: SystemExit: 1"

    def test_what_is_no_python(self, file: Path) -> None:
        file.write_bytes(b"\x00\xff\xfe")
        assert refusal(file).startswith(f"{file} can't be loaded: ")  # SyntaxError, or ValueError in Python 3.11.2


class TestTriedOut:
    """What loads, but can't make a connection."""

    HEAD = "from chitcpd.tcp.connection import Connection\n\n\nclass Mine(Connection):\n"
    EXPECTED = "expected `def __init__(self, *, iss: int, config: Config)`, which begins with that of its base class"

    def refusal(self, file: Path, body: str) -> str:
        file.write_text(self.HEAD + body)
        with pytest.raises(LoadError) as error:
            try_out(load(str(file)), str(file), Config())
        return str(error.value).removeprefix(f"{file} can't make a connection: ")

    @pytest.mark.parametrize("profile", PROFILES)
    def test_the_reference_with_each_profile(self, profile: str) -> None:
        made: list[Config] = []

        class Reference(Connection):
            def __init__(self, *, iss: int, config: Config) -> None:
                super().__init__(iss=iss, config=config)
                made.append(self.config)

        try_out(Reference, "reference", PROFILES[profile]())
        assert made == [PROFILES[profile]()]

    def test_it_is_given_the_settings(self, file: Path) -> None:
        body = "    def __init__(self, *, iss, config):\n        raise ValueError(config.mss)\n"
        file.write_text(self.HEAD + body)
        with pytest.raises(LoadError, match="ValueError: 777; mend its __init__"):
            try_out(load(str(file)), str(file), Config(mss=777))

    def test_its_init_raises(self, file: Path) -> None:
        body = "    def __init__(self, *, iss, config):\n        self.size = 1 / 0\n"
        assert self.refusal(file, body) == "line 6: ZeroDivisionError: division by zero; mend its __init__"

    def test_its_init_ends_the_program(self, file: Path) -> None:
        body = "    def __init__(self, *, iss, config):\n        raise SystemExit(1)\n"
        assert self.refusal(file, body) == "line 6: SystemExit: 1; mend its __init__"

    def test_its_init_leaves_out_the_one_of_its_base_class(self, file: Path) -> None:
        said = self.refusal(file, "    def __init__(self, *, iss, config):\n        pass\n")
        assert said.startswith("line 5: AttributeError: 'Mine' object has no attribute ")
        assert said.endswith("; begin __init__ with `super().__init__(iss=iss, config=config)`")

    def test_its_init_uses_what_the_base_class_has_not_made_yet(self, file: Path) -> None:
        body = "    def __init__(self, *, iss, config):\n        self.size = self.config.mss\n"
        said = self.refusal(file, body)
        assert said.startswith("line 6: AttributeError: 'Mine' object has no attribute 'config'; begin __init__ with")

    def test_its_init_takes_other_arguments(self, file: Path) -> None:
        said = self.refusal(file, "    def __init__(self):\n        pass\n")
        assert said.startswith("line 5: TypeError: Mine.__init__() got an unexpected keyword argument 'iss'; ")
        assert said.endswith(self.EXPECTED)

    def test_a_class_from_a_module(self) -> None:
        class Bare(TcpConnection):
            __init__ = object.__init__

        Bare.__abstractmethods__ = frozenset()
        with pytest.raises(LoadError, match=r"Bare can't make a connection: TypeError: .*; expected `def __init__"):
            try_out(Bare, "Bare", Config())
