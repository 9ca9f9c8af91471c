from __future__ import annotations


def segment_arrives() -> None:
    """A TCP is a class, and there is none here."""
