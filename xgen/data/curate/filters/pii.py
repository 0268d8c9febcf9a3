"""Personal data becomes placeholders: mail and Internet addresses, telephone numbers, keys, cards and accounts.

A kernel looks through the bytes for what each of them cannot be without ("@", three full stops between digits, a run of
digits, the beginning of a key) and only the documents that have it are searched with regular expressions: most are
passed at memory speed. Mail and IPv4 are datatrove's patterns (PIIFormatter); it knows no others. What such patterns
miss is much: names, postal addresses, numbers without a mark. This masks, it does not make anonymous.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.filters.take import replace_texts
from xgen.data.curate.filters.thresholds import Pii
from xgen.data.curate.filters.trace import Batch, Trace, at_most

KINDS = ("key", "email", "card", "ip", "phone")  # in this order: a key may have an "@", a card looks like a telephone
_AT, _DOTS, _DIGITS, _KEY = 1, 2, 4, 8  # what a document may hold, as the kernel sees it
_NEEDS = {"key": _KEY, "email": _AT, "card": _DIGITS, "ip": _DOTS, "phone": _DIGITS}
_LOCAL = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = rb"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_OCTET = rb"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
_PATTERNS = {
    "key": re.compile(
        rb"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]{0,8000}?-----END [A-Z ]*PRIVATE KEY-----"
        rb"|\b(?:(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pos]_[A-Za-z0-9]{36,}|github_pat_\w{22,}|glpat-[\w-]{20,}"
        rb"|sk-(?:[A-Za-z]+-)?[A-Za-z0-9_-]{20,}|[sr]k_live_[A-Za-z0-9]{16,}|hf_[A-Za-z0-9]{30,}"
        rb"|xox[abposr]-[A-Za-z0-9-]{10,}|AIza[\w-]{35}|ya29\.[\w-]{20,}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}"
        rb"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
    ),
    # Possessive before the "@": a long line of letters would else take the square of its length.
    "email": re.compile(
        rb"(?<![\w!#$%&'*+/=?^`{|}~.-])" + _LOCAL + rb"(?:\." + _LOCAL + rb")*+@(?:" + _LABEL + rb"\.)+" + _LABEL
    ),
    "card": re.compile(
        rb"(?<![\w.-])(?:[0-9]{4}(?:[ -]?[0-9]{4}){2}[ -]?[0-9]{1,7}"
        rb"|[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?)(?![\w-])"
    ),
    "ip": re.compile(rb"(?<![\w.])(?:" + _OCTET + rb"\.){3}" + _OCTET + rb"(?![\w]|\.[0-9])"),
    "phone": re.compile(
        rb"(?<![\w.+/=-])(?:\+[1-9][0-9]{0,2}[ .-]?(?:\(0?[0-9]{1,4}\)[ .-]?)?[0-9]{1,5}(?:[ .-]?[0-9]{2,5}){1,4}"
        rb"|\([2-9][0-9]{2}\) ?[2-9][0-9]{2}[ .-][0-9]{4}|[2-9][0-9]{2}[.-][2-9][0-9]{2}[.-][0-9]{4})(?![\w-]|\.[0-9])"
    ),
}


@dataclass(frozen=True)
class PiiFilter:
    """Changes the text: `Trace.changed`. Measures: how many of each kind, and of all in 1,000 bytes."""

    thresholds: Pii = field(default_factory=Pii)
    name: str = "pii"

    def check(self, batch: Batch) -> Trace:
        texts = batch.texts
        counts = {kind: np.zeros(len(texts)) for kind in KINDS}
        changed: dict[int, bytes] = {}
        may_hold = _may_hold(texts.data, texts.offsets, _BEGINNINGS, _STARTS)
        for number in np.flatnonzero(may_hold).tolist():
            before = texts.data[texts.offsets[number] : texts.offsets[number + 1]].tobytes()
            after = before
            for kind in KINDS:
                placeholder = getattr(self.thresholds, kind)
                if placeholder is not None and may_hold[number] & _NEEDS[kind]:
                    after, counts[kind][number] = mask(after, kind, placeholder.encode())
            if after != before:
                changed[number] = after
        per_kb = 1000 * np.sum(list(counts.values()), axis=0) / np.maximum(np.diff(texts.offsets), 1)
        rules = at_most("max_per_kb", "per_kb", self.thresholds.max_per_kb)
        result = Batch(replace_texts(texts, changed), batch.urls) if changed else batch
        return Trace.of(self.name, counts | {"per_kb": per_kb}, rules, result)


def mask(text: bytes, kind: str, placeholder: bytes) -> tuple[bytes, int]:
    """(text with a placeholder for each of one kind, how many)."""
    found = 0

    def replaced(match: re.Match[bytes]) -> bytes:
        nonlocal found
        if not _holds(kind, match.group().decode()):
            return match.group()
        found += 1
        return placeholder

    return _PATTERNS[kind].sub(replaced, text), found


def _holds(kind: str, match: str) -> bool:
    """What a pattern cannot say: public addresses, checksums, enough digits."""
    if kind == "ip":
        octets = [int(octet) for octet in match.split(".")]
        return ipaddress.IPv4Address(bytes(octets)).is_global
    if kind == "phone":
        return 8 <= sum(letter.isdigit() for letter in match) <= 15
    if kind == "card":
        plain = match.replace(" ", "").replace("-", "")
        return _is_card(plain) if plain.isdigit() else _is_iban(plain)
    return True


def _is_card(digits: str) -> bool:
    """Luhn's sum, and a first digit that the networks of cards use."""
    odd, even = digits[-1::-2], digits[-2::-2]
    total = sum(map(int, odd)) + sum(sum(divmod(2 * int(digit), 10)) for digit in even)
    return digits[0] in "3456" and total % 10 == 0


def _is_iban(text: str) -> bool:
    """ISO 13616: as a number with the head at the end, letters from 10 on, 1 modulo 97."""
    return 15 <= len(text) <= 34 and int("".join(str(int(letter, 36)) for letter in text[4:] + text[:4])) % 97 == 1


def _table(texts: tuple[bytes, ...]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """[texts, longest], padded with 0; and [256, 256]: the first two bytes of one of them."""
    table = np.zeros((len(texts), max(map(len, texts)) + 1), dtype=np.uint8)
    starts = np.zeros((256, 256), dtype=np.bool_)
    for row, text in enumerate(texts):
        table[row, : len(text)] = np.frombuffer(text, dtype=np.uint8)
        starts[text[0], text[1]] = True
    return table, starts


_BEGINNINGS, _STARTS = _table(
    (
        b"AKIA", b"ASIA", b"ghp_", b"gho_", b"ghs_", b"github_pat_", b"glpat-", b"sk-", b"sk_live_", b"rk_live_",
        b"hf_", b"xox", b"AIza", b"ya29.", b"eyJ", b"-----BEGIN", b"npm_", b"pypi-",
    )
)  # fmt: skip


@njit(inline="always")
def _is_name(byte):  # type: ignore[no-untyped-def]
    """Whether an address of mail may have this byte beside its sign (_LOCAL; of a domain it has fewer)."""
    return 33 <= byte <= 126 and byte not in (34, 40, 41, 44, 46, 58, 59, 60, 62, 64, 91, 92, 93)


@njit(cache=True, nogil=True)
def _may_hold(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], beginnings: NDArray[np.uint8], starts: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """[documents]: bits of what a document may hold."""
    found = np.zeros(len(offsets) - 1, np.int64)
    for number in range(len(found)):
        low, high = offsets[number], offsets[number + 1]
        digits, dots, last_dot = 0, 0, low
        for place in range(low, high):
            byte = data[place]
            if 48 <= byte <= 57:
                digits += 1
                if digits >= 8:
                    found[number] |= _DIGITS
            elif byte == 64:
                # A decorator of code has no name before its sign, and most documents of code have decorators.
                if low < place < high - 1 and _is_name(data[place - 1]) and _is_name(data[place + 1]):
                    found[number] |= _AT
            elif byte == 46 and low < place < high - 1 and 48 <= data[place - 1] <= 57 and 48 <= data[place + 1] <= 57:
                dots = dots + 1 if place - last_dot <= 4 else 1
                last_dot = place
                if dots >= 3:
                    found[number] |= _DOTS
            elif not (byte in (32, 40, 41, 43, 45, 46) or 65 <= byte <= 90):  # an IBAN has capital letters
                digits = 0
            if place + 1 < high and starts[byte, data[place + 1]] and not found[number] & _KEY:
                for row in range(len(beginnings)):
                    size = 0
                    while beginnings[row, size] and place + size < high and beginnings[row, size] == data[place + size]:
                        size += 1
                    if beginnings[row, size] == 0:
                        found[number] |= _KEY
    return found
