"""What the filters know of characters, and of the exceptions in English: tables for the kernels, read once.

They are recorded (english.json) and not asked of the running Python, whose Unicode grows: a corpus gives the same
bytes under any version. Made by benchmarks/peers/english.py from spaCy's English tokenizer, whose patterns name the
classes, and from datatrove, whose filters name `symbol` and `terminal`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numba import njit
from numpy.typing import NDArray

SPACE = 1 << 0  # str.isspace
LETTER = 1 << 1  # str.isalpha
ALPHA = 1 << 2  # spaCy's letters, with `LOWER` and `UPPER`; scripts without case are in all three
LOWER = 1 << 3
UPPER = 1 << 4
QUOTE = 1 << 5
PREFIX = 1 << 6  # one character that is a word of its own before a word
SUFFIX = 1 << 7  # the same after a word
INFIX = 1 << 8  # the same within a word
BEFORE_FULL_STOP = 1 << 9  # a full stop after this one ends a sentence and no abbreviation
CURRENCY = 1 << 10
SYMBOL = 1 << 11  # datatrove's PUNCTUATION_SET: a word of these alone does not count as a word
TERMINAL = 1 << 12  # datatrove's TERMINAL_PUNCTUATION: ends a line of prose
PUNCTUATION = 1 << 13  # Unicode's categories P*
SENTENCE_END = 1 << 14
WORD = 1 << 15  # \w
DIGIT = 1 << 16  # \d
_NAMES = (
    "space", "letter", "alpha", "lower", "upper", "quote", "prefix", "suffix", "infix", "before_full_stop", "currency",
    "symbol", "terminal", "punctuation", "sentence_end", "word", "digit",
)  # fmt: skip

MAX_EXCEPTION = 32  # bytes; the longest has 31
MAX_PIECES = 3
BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_ONE, _SHIFT = np.uint64(1), np.uint64(32)
BOUNDARY = np.uint64(257)  # between the words of a pattern: no byte


@dataclass(frozen=True)
class Tables:
    """Arguments of the kernels. Hash tables are open, of a power of two; key 0 is empty."""

    classes: NDArray[np.uint32]  # [0x110000], bits above
    exceptions: NDArray[np.uint64]  # hash of a chunk between spaces
    pieces: NDArray[np.uint8]  # [len(exceptions), MAX_PIECES], bytes of each of its words, 0 where there is none
    patterns: NDArray[np.uint64]  # hash of words with BOUNDARY between, that together are an exception after all
    pattern_pieces: NDArray[np.uint8]
    pattern_starts: NDArray[np.bool_]  # [256, 256], first bytes of the first two words of a pattern
    units: NDArray[np.uint64]  # hash of units of measure


@njit(cache=True, nogil=True)
def step(code: np.uint64, byte: np.uint64) -> np.uint64:
    """Polynomial hash, modulo 2^64, one byte further: of two texts joined it is code(a) * BASE^len(b) + code(b)."""
    return code * BASE + byte + _ONE


@njit(cache=True, nogil=True)
def slot_of(code: np.uint64, size: int) -> int:
    """First place to look in an open hash table whose size is a power of two."""
    return int(((code ^ (code >> _SHIFT)) * _MIX) >> _SHIFT) & (size - 1)


@njit(cache=True, nogil=True)
def find(keys: NDArray[np.uint64], code: np.uint64) -> int:
    """Slot of a key in an open hash table, or -1."""
    slot = slot_of(code, len(keys))
    while keys[slot] != 0:
        if keys[slot] == code:
            return slot
        slot = (slot + 1) & (len(keys) - 1)
    return -1


def hash_bytes(text: bytes) -> int:
    """What the kernels compute, for the making of tables."""
    code = 0
    for byte in text:
        code = (code * int(BASE) + byte + 1) & 0xFFFF_FFFF_FFFF_FFFF
    return code


@cache
def tables() -> Tables:
    """Reads english.json: 10 ms, 5 MB."""
    told = json.loads(files(__package__).joinpath("english.json").read_text(encoding="ascii"))
    classes = np.zeros(0x110000, dtype=np.uint32)
    for bit, name in enumerate(_NAMES):
        for span in told["classes"][name].split():
            first, _, last = span.partition("-")
            classes[int(first, 16) : int(last or first, 16) + 1] |= np.uint32(1 << bit)
    exceptions: dict[int, list[int]] = {}
    patterns: dict[int, list[int]] = {}
    starts = np.zeros((256, 256), dtype=np.bool_)
    for chunk, (words, *seen) in told["exceptions"].items():
        sizes = [len(word.encode()) for word in words.split()]
        assert sum(sizes) == len(chunk.encode()) <= MAX_EXCEPTION and len(sizes) <= MAX_PIECES, chunk
        exceptions[hash_bytes(chunk.encode())] = sizes
        for pattern in (told_words.split() for told_words in seen if " " in told_words):
            patterns[_hash_words(pattern)] = sizes
            starts[pattern[0].encode()[0], pattern[1].encode()[0]] = True
    return Tables(
        classes,
        *_open_table(exceptions),
        *_open_table(patterns),
        starts,
        _open_table({hash_bytes(unit.encode()): [] for unit in told["units"]})[0],
    )


def _hash_words(words: list[str]) -> int:
    code = 0
    for number, word in enumerate(words):
        if number:
            code = (code * int(BASE) + int(BOUNDARY)) & 0xFFFF_FFFF_FFFF_FFFF
        for byte in word.encode():
            code = (code * int(BASE) + byte + 1) & 0xFFFF_FFFF_FFFF_FFFF
    return code


def _open_table(entries: dict[int, list[int]]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    size = 1 << (len(entries) * 4).bit_length()
    keys, values = np.zeros(size, dtype=np.uint64), np.zeros((size, MAX_PIECES), dtype=np.uint8)
    for code, sizes in entries.items():
        slot = int(slot_of(np.uint64(code), size))
        while keys[slot]:
            slot = (slot + 1) % size
        keys[slot] = code
        values[slot, : len(sizes)] = sizes
    return keys, values
