"""The checks of a run: pure verdicts on how applications ended and on the files that they left."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from testbed.outcome import Comparison, Ending, Result
from testbed.plan import AppPlan


def exit_status(ending: Ending) -> Result:
    """Whether an application that was expected to end has done so, by itself, in time, with the right status."""
    app = ending.app
    check = f"exit {app.name}"
    if ending.how == "timed out":
        return Result(check, False, f"{app.name} did not end within {app.timeout:g} s")
    if ending.how != "by itself":
        return Result(check, False, f"{app.name} did not end by itself: {ending.how}")
    if ending.status != app.expect_exit:
        return Result(check, False, f"{app.name} ended with status {ending.status}, expected {app.expect_exit}")
    return Result(check, True, f"{app.name} ended with status {ending.status}")


def integrity(receiver: str, apps: Iterable[AppPlan], files: Path) -> Result:
    """Whether what `receiver` has in its working directory `files` is what the others were given.

    Every file that another application was given and that `receiver` has under the same name is compared; at least
    one such file must be there.
    """
    check = f"integrity {receiver}"
    given = [(app, name) for app in apps if app.name != receiver for name in app.files]
    if not given:
        return Result(check, False, "no other application was given a file: there is nothing to compare with")
    comparisons = tuple(
        Comparison(name, app.name, hashlib.sha256(app.files[name]).hexdigest(), _sha256(files / name))
        for app, name in given
    )
    arrived = tuple(comparison for comparison in comparisons if comparison.received is not None)
    if not arrived:
        names = ", ".join(dict.fromkeys(name for _, name in given))
        return Result(check, False, f"{receiver} has no file {names} in its working directory", comparisons)
    different = [comparison for comparison in arrived if comparison.received != comparison.sent]
    if different:
        details = ", ".join(f"{one.file} is not what {one.giver} was given" for one in different)
        return Result(check, False, details, arrived)
    return Result(check, True, f"{', '.join(one.file for one in arrived)} arrived whole", arrived)


def _sha256(path: Path) -> str | None:
    if path.is_symlink() or not path.is_file():  # a link may lead to the very file that was to be sent
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
