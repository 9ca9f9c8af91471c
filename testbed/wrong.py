"""What a person can set right by asking otherwise."""

from __future__ import annotations


class Wrong(Exception):
    """What was asked for is not there, or can't be (exit status 2); the message is a sentence without its full stop."""

    @property
    def sentences(self) -> list[str]:
        """All that is to be said of it."""
        return [f"{self}."]
