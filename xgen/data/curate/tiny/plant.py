"""What is planted among real text, and known: copies, near copies, and pieces of evaluation items."""

from __future__ import annotations

import random
import re

_NGRAM = 5
_WORD = re.compile(r"\w+")


def grams(text: str) -> set[str]:
    """What similarity is measured in: 5-grams of lower-case words."""
    words = _WORD.findall(text.lower())
    return {" ".join(words[at : at + _NGRAM]) for at in range(max(len(words) - _NGRAM + 1, 1))}


def jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def same(text: str, rng: random.Random) -> str:
    """The same words: other space at the ends of lines, and in a third of the copies without the empty lines."""
    lines = text.split("\n")
    if rng.random() < 0.33:
        lines = [line for line in lines if line.strip()] or lines
    ending = rng.choice(("\n", " \n", "\r\n"))
    return ending.join(lines) + rng.choice(("", "\n", "\n\n"))


def near(text: str, low: float, high: float, vocabulary: list[str], rng: random.Random) -> tuple[str, float]:
    """Words replaced, left out and put in until the similarity to the text is about in the bin; and what it is."""
    pieces, before = re.split(r"(\w+)", text), grams(text)
    target = rng.uniform(low, high)
    edited, similarity = text, 1.0
    while similarity > target + 0.02 or similarity >= high:
        # As many as would do if no two edits met in an n-gram.
        lost = len(before) * (similarity - target) / (1 + similarity) / _NGRAM
        for _ in range(max(int(lost), 1)):
            at = 2 * rng.randrange(len(pieces) // 2) + 1
            word = rng.choice(vocabulary)
            pieces[at] = rng.choice(("", word, f"{word} {pieces[at]}"))
        edited = "".join(pieces)
        similarity = jaccard(before, grams(edited))
    return edited, similarity


def passage(text: str, num_words: int, rng: random.Random) -> str:
    """So many words in a row, with what is between them; empty where the text is too short."""
    places = [match.span() for match in _WORD.finditer(text)]
    if len(places) < num_words:
        return ""
    first = rng.randrange(len(places) - num_words + 1)
    return text[places[first][0] : places[first + num_words - 1][1]]


def leak(text: str, item: str, rng: random.Random) -> str:
    """The text with the item between two of its lines, cleaned another way than the item."""
    way = rng.randrange(3)
    dirty = item if way == 0 else item.upper() if way == 1 else re.sub(r"\s+", " ", item)
    lines = text.split("\n")
    at = rng.randrange(len(lines) + 1)
    return "\n".join([*lines[:at], dirty, *lines[at:]])
