"""Real text broken the ways that the web breaks it, so that every rule of the filters has documents on both sides."""

from __future__ import annotations

import random
import re

_SIGNS = (
    "don\u2019t", "\u201cquoted\u201d", "\u2026", "...", "\u2014", "\u2013", "e.g.", "U.S.", "$5", "10km", "5%", "C++",
    ":)", ":-(", "<3", "www.example.com", "https://user@example.com:8080/a-b?c=d#e", "me@example.org", "8.8.8.8/x-y",
    "na\u00efve", "\u65e5\u672c\u8a9e\u3002", "\u0645\u0631\u062d\u0628\u0627\u061f",
    "\u041f\u0440\u0438\u0432\u0435\u0442!", "\U0001f642",
    "foo_bar(baz)", "a.B", "x=y", "re-use", "it's", "I'll", "cannot", "p.m.", "[12]", "[edit]",
    "lorem ipsum", "javascript", "Terms of Use", "{", "\u00a0", "\u2028", "\t", "\r\n", "\u2022", "#", "-", "1,000.5",
    "\u2019s", "''", "\u00ae", "\u00b0C.", "US$",
)  # fmt: skip


def mangle(texts: list[str], rng: random.Random) -> list[str]:
    """As many again, each a piece of one of them changed in one to three ways."""
    made = []
    for text in texts:
        start = rng.randrange(max(1, len(text) - 200))
        piece = text[start : start + rng.choice((60, 300, 1000, 4000))]
        for _ in range(rng.randint(1, 3)):
            piece = rng.choice(_WAYS)(piece, rng)
        made.append(piece)
    return made


def _repeat_lines(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    return "\n".join(line for line in lines for _ in range(1 + (rng.random() < 0.3)))


def _repeat_paragraphs(text: str, rng: random.Random) -> str:
    parts = text.split("\n\n")
    return "\n\n".join(parts + rng.choices(parts, k=max(1, len(parts) // 2)))


def _repeat_words(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    at, size = rng.randrange(len(words)), rng.randint(2, 12)
    return " ".join(words[:at] + words[at : at + size] * rng.randint(2, 12) + words[at:])


def _sprinkle(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    for _ in range(max(1, len(words) // rng.choice((3, 10, 40)))):
        words.insert(rng.randrange(len(words) + 1), rng.choice(_SIGNS))
    return " ".join(words)


def _bullets(text: str, rng: random.Random) -> str:
    sign = rng.choice(("- ", "• ", "* "))
    return "\n".join(sign + line if rng.random() < 0.93 else line for line in text.split("\n"))


def _ellipses(text: str, rng: random.Random) -> str:
    sign = rng.choice(("...", "…", " …"))
    return "\n".join(line + sign if rng.random() < 0.35 else line for line in text.split("\n"))


def _unwrap(text: str, rng: random.Random) -> str:
    return re.sub(r"(?<=\S) *\n *(?=\S)", " " if rng.random() < 0.8 else ". ", text)


def _wrap(text: str, rng: random.Random) -> str:
    return re.sub(r"([.;,]) +", rng.choice((r"\1\n", r"\1\r\n", r"\1\n\n")), text)


def _glue(text: str, rng: random.Random) -> str:
    return "".join(c for c in text if c != " " or rng.random() < 0.5)


def _shuffle(text: str, rng: random.Random) -> str:
    letters = list(text)
    for _ in range(len(letters) // 10):
        one, other = rng.randrange(len(letters)), rng.randrange(len(letters))
        letters[one], letters[other] = letters[other], letters[one]
    return "".join(letters)


_WAYS = (
    _repeat_lines, _repeat_paragraphs, _repeat_words, _sprinkle, _sprinkle, _bullets, _ellipses, _unwrap, _wrap, _glue,
    _shuffle,
)  # fmt: skip
