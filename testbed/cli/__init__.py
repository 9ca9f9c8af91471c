"""The commands of testbed. They parse and print; what they do is in testbed's core."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import cast

import click

import chitcpd
from testbed.cli.output import Group, Settings, complain
from testbed.signals import Interrupted
from testbed.unavailable import Unavailable
from testbed.wrong import Wrong

# Name -> where it is. Loaded when it is used, for what some need takes long to load.
_COMMANDS = {
    "run": "run.run",
    "up": "lab.up",
    "down": "lab.down",
    "ps": "lab.ps",
    "logs": "lab.logs",
    "gc": "use.gc",
    "link": "link.link",
    "exec": "use.exec_",
    "shell": "use.shell",
    "capture": "use.capture",
    "collect": "use.collect",
    "init": "init.init",
    "validate": "validate.validate",
    "plan": "plan.plan",
    "graph": "graph.graph",
    "schema": "schema.schema",
    "report": "report.report",
    "ladder": "ladder.ladder",
    "merge": "merge.merge",
    "dissector": "dissector.dissector",
    "replay": "replay.replay",
    "new": "new.new",
    "grade": "grade.grade_",
    "matrix": "grade.matrix",
    "doctor": "doctor.doctor",
    "completion": "completion.completion",
}


class _Commands(Mapping[str, click.Command]):
    """The commands by their names."""

    def __getitem__(self, name: str) -> click.Command:
        module, _, attribute = _COMMANDS[name].partition(".")
        return cast(click.Command, getattr(import_module(f"testbed.cli.{module}"), attribute))

    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    def __len__(self) -> int:
        return len(_COMMANDS)


@click.group(cls=Group, commands=_Commands(), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(chitcpd.__version__, prog_name="testbed")
def cli() -> None:
    """Labs of hosts, links and applications over a TCP that you can write.

    \b
    A first run, and what it left:
      testbed doctor
      testbed run topologies/two-hosts.yaml
      testbed report --open

    \b
    A lab that stays, until `down`:
      testbed up topologies/two-hosts.yaml
      testbed ps
      testbed shell two-hosts alice
      testbed link set two-hosts alice-bob delay=50ms --for 10s
      testbed logs -f two-hosts
      testbed down two-hosts

    \b
    A topology of your own:
      testbed init my-lab.yaml
      testbed validate my-lab.yaml
      testbed graph my-lab.yaml
      testbed run my-lab.yaml --seed 7

    \b
    A TCP of your own, and its worth:
      testbed new my_tcp.py
      testbed grade my_tcp.py

    Exit status: 0 good; 1 a check or an application failed; 2 wrong usage or topology; 3 this machine can't; 4 our
    fault; 128 + n after a signal.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (sys.argv's if None) and return its exit status."""
    settings = Settings()
    width = max(min(shutil.get_terminal_size().columns, 80) - 2, 1)  # click would take no less than 50
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # a name, or a line of `graph`, that its encoding has not
    try:
        status = cli.main(arguments, "testbed", obj=settings, standalone_mode=False, terminal_width=width)
        return int(status or 0)
    except click.ClickException as error:
        error.show()
        return 2
    except Wrong as error:
        for sentence in error.sentences:
            complain(sentence)
        return 2
    except Unavailable as error:
        complain(str(error), error.remedy)
        return 3
    except Interrupted as interrupted:
        complain(f"interrupted by {interrupted}.")
        return interrupted.status
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted.")
        return 130
    except BrokenPipeError:
        # Who read our output has gone: nothing is wrong, and Python must not complain about it when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            complain(f"what there is to write can't be written: {error.strerror}.", "Make room, then try again.")
            return 3
        complain(f"{type(error).__name__}: {error}. This is a fault of testbed's.", _what_to_do(settings))
        return 4


def _what_to_do(settings: Settings) -> str:
    return traceback.format_exc() if settings.verbose else "Run it again with -v, and report what it says."
