"""The essay haystack: any text, whose words and sentences know where they end and how many tokens lie before."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xgen.data.errors import StoreError
from xgen.evals.ruler.tokens import Counter, Counts

# Of text that fills 256k tokens; a shorter text is repeated, as in NVIDIA's scripts.
_CHARACTERS = 2_000_000
_SENTENCE_END = re.compile(r"""[.!?]["'\u201d\u2019)\]]*(?= ["'\u201c\u2018(\[]?[A-Z0-9])""")


def text_files(path: Path) -> list[Path]:
    """What a haystack is read from. Raises StoreError where there is none."""
    files = sorted(file for file in path.rglob("*") if file.suffix in (".txt", ".md")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise StoreError(path, "is no text", "name a text file, or a folder of .txt or .md files")
    return files


@dataclass(frozen=True)
class Haystack:
    """Text with single spaces. `name` and `digest` say which: they belong beside every score."""

    name: str
    text: str
    digest: str

    @classmethod
    def of(cls, texts: Iterable[str], name: str) -> Haystack:
        """Raises StoreError when there are fewer than 100 words."""
        text = " ".join(" ".join(texts).split())
        if text.count(" ") < 99:
            raise StoreError(name, f"has {len(text.split())} words", "give a text of at least 100")
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        return cls(name, text, digest)

    @classmethod
    def read(cls, path: Path) -> Haystack:
        """A text file, or all *.txt and *.md of a folder in the order of their names."""
        try:
            return cls.of((file.read_text(encoding="utf-8") for file in text_files(path)), str(path))
        except PermissionError as error:
            raise StoreError(error.filename, "cannot be read", "name a text that you may read") from None
        except UnicodeDecodeError as error:
            raise StoreError(path, f"is not UTF-8 ({error.reason})", "convert it") from None

    @cached_property
    def body(self) -> str:
        """The text, as often as it takes."""
        return " ".join([self.text] * (_CHARACTERS // len(self.text) + 1))[: _CHARACTERS + len(self.text)]

    @cached_property
    def word_ends(self) -> NDArray[np.int64]:
        """Character offset at which each word of the body ends."""
        spaces = np.array([match.start() for match in re.finditer(" ", self.body)], dtype=np.int64)
        return np.append(spaces, len(self.body))

    @cached_property
    def sentence_ends(self) -> NDArray[np.int64]:
        """Number of words up to the end of each sentence of the body."""
        ends = np.array([match.end() for match in _SENTENCE_END.finditer(self.body)], dtype=np.int64)
        return np.searchsorted(self.word_ends, ends) + 1

    def tokens(self, counter: Counter) -> Counts:
        """Tokens up to the end of each word of the body."""
        return counter.cached("words", self.body, lambda: counter.until(self.body, self.word_ends))

    def with_needles(self, num_words: int, depths: list[int], needles: list[str]) -> str:
        """The first words, with each needle at a sentence boundary `depth` percent into the sentences."""
        num_whole = int(np.searchsorted(self.sentence_ends, num_words, side="left"))
        places = [(num_whole + 1) * depth // 100 for depth in depths]  # in sentences; the last may be cut
        parts, begin = [], 0
        for place, needle in zip(places, needles, strict=True):
            words = 0 if not place else num_words if place > num_whole else int(self.sentence_ends[place - 1])
            end = int(self.word_ends[words - 1]) if words else 0
            parts += [self.body[begin:end].strip(), needle]
            begin = end
        parts.append(self.body[begin : int(self.word_ends[num_words - 1])].strip())
        return " ".join(part for part in parts if part)
