"""The Wireshark dissector for port 23300: where it is, and into which folder it goes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from testbed.unavailable import Unavailable
from testbed.whole import whole

FILE = Path(__file__).parent / "wireshark" / "chitcp.lua"
_USUAL = Path("~/.local/lib/wireshark/plugins")
_PATIENCE = 30.0  # seconds for an answer of tshark's


def install() -> Path:
    """Copy it to the user's own Lua plugins of Wireshark and tshark; returns the copy. Raises Unavailable."""
    copy = _folder() / FILE.name
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with whole(copy) as fresh:
            shutil.copyfile(FILE, fresh)
    except OSError as error:
        raise Unavailable(f"{copy} can't be written: {error.strerror}.", f"Copy it yourself: {FILE}") from error
    return copy


def _folder() -> Path:
    """Where Wireshark itself says, if it is installed; else where it looks as a rule."""
    for program in ("tshark", "wireshark"):
        if shutil.which(program) is None:
            continue
        try:
            said = subprocess.run([program, "-G", "folders"], capture_output=True, text=True, timeout=_PATIENCE).stdout
        except (OSError, subprocess.TimeoutExpired):
            continue
        for line in said.splitlines():
            name, _, folder = line.partition(":")
            if name == "Personal Lua Plugins" and folder.strip():
                return Path(folder.strip())
    return _USUAL.expanduser()
