"""Where a reader of logs is, so that a connection that was lost costs no line and shows none twice."""

from __future__ import annotations

import re
from collections.abc import Sequence


class Places:
    """The lines of `xgen logs`, each with its place behind a NUL, which no line that is printed has."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words, self._rest = list(words), b""
        self.last = ""  # the place of the last line that was shown

    def words(self) -> list[str]:
        """The command that goes on behind it. What had come of a line is told again."""
        self._rest = b""
        if not self.last:
            return self._words
        own = options_of(self._words)
        return [*without_beginning(own), "--after", self.last, *self._words[len(own) :]]

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


def options_of(words: Sequence[str]) -> list[str]:
    """A command up to the `--` behind which no word is an option."""
    return list(words[: words.index("--")] if "--" in words else words)


def follows(words: Sequence[str]) -> bool:
    return any(word == "--follow" or re.fullmatch(r"-f+(n.*)?", word) for word in options_of(words))


def without_beginning(words: Sequence[str]) -> list[str]:
    """A command without what said where in the logs to begin: `--tail 5`, `-n5`, `-fn 5`."""
    kept: list[str] = []
    options = iter(words)
    for word in options:
        short = re.fullmatch(r"-(f*)n(.*)", word)
        if word in ("--after", "--since", "--tail") or (short and not short[2]):
            next(options, None)
        if short:
            kept += ["-f"] if short[1] else []
        elif not re.match(r"--(after|since|tail)(=|$)", word):
            kept.append(word)
    return kept
