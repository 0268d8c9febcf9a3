"""What is wrong with text, tokens or a store, in one line; never a traceback."""

from __future__ import annotations

from pathlib import Path


class StoreError(Exception):
    """Names the file (and its line, where it has lines), what is wrong with it, and what to do."""

    def __init__(self, place: Path | str, what: str, fix: str) -> None:
        super().__init__(f"{place}: {what}; {fix}")
        self.place, self.what, self.fix = str(place), what, fix


class InterruptedBuildError(StoreError):
    """Not the input's fault: the same call, made again, goes on where this one ended."""
