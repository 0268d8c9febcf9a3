"""Where a reader of logs is, so that a connection that was lost costs no line and shows none twice."""

from __future__ import annotations

from collections.abc import Sequence


class Places:
    """The lines of `xgen logs`, each with its place behind a NUL, which no line that is printed has."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words, self._rest = list(words), b""
        self.last = ""  # the place of the last line that was shown

    def words(self) -> list[str]:
        """The command that goes on behind it. What had come of a line is told again."""
        self._rest = b""
        return [*without_beginning(self._words), "--after", self.last] if self.last else self._words

    def shown(self, content: bytes) -> bytes:
        """The lines that are complete, without their places."""
        *lines, self._rest = (self._rest + content).split(b"\n")
        texts = []
        for line in lines:
            text, mark, place = line.partition(b"\0")
            texts.append(text + b"\n")
            if mark:
                self.last = place.decode()
        return b"".join(texts)


def without_beginning(words: Sequence[str]) -> list[str]:
    """A command without what said where in the logs to begin."""
    kept: list[str] = []
    options = iter(words)
    for word in options:
        if word in ("--after", "--since", "--tail", "-n"):
            next(options, None)
        elif not word.startswith(("--after=", "--since=", "--tail=", "-n")):
            kept.append(word)
    return kept
