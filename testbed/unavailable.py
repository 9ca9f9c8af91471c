"""What is raised when this machine can't, wherever that is found out."""

from __future__ import annotations


class Unavailable(Exception):
    """This machine can't (exit status 3): one sentence that says what is wrong, one that says what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[Unavailable], tuple[str, str]]:
        """So that a worker process can tell it to its parent."""
        return Unavailable, (str(self), self.remedy)
