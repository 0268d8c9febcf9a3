"""A user's mistake: file, key, value and what to write instead, one line each; never a traceback."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One mistake. `message` names the value and the fix; `key` is a path such as `stages[0].seq_len`."""

    file: str
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.key, self.message) if part)


class SpecError(Exception):
    """One or more problems with what the user wrote. The CLI prints one line each and exits with code 2."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
