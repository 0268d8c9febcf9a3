"""Documents that hide a number and ask for it, and the tokenizer that has their words whole.

`asked` is RULER's niah_single_1, word for word, with its answer. `keyed` is the same without the preamble, `plain`
without a key too: so short that a model learns from them to copy at all. A key belongs to the held-out part or to the
training's by its hash, and a number by its own: no needle is in both.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from xgen.data.tokenizer import END_OF_TEXT
from xgen.evals.ruler import vocabulary
from xgen.evals.ruler.draws import number, rng
from xgen.evals.ruler.pool import key_maker
from xgen.evals.ruler.recipe import Noise
from xgen.evals.ruler.tasks import NEEDLE, NOISE, TASKS
from xgen.evals.ruler.tokens import Counter

VOCAB_SIZE = 640
_TASK = TASKS["niah_single_1"]
# A digit is a token, and another one by how many follow it in its number: what to copy next is then never in doubt,
# where a 4 that comes twice in a number would make it so. Index hints do the same (arXiv 2310.16028). The marks are of
# Unicode's private use; they stand before a digit inside the tokenizer alone, and no decoded text has them.
_MARKS = [chr(0xE000 + number) for number in range(10)]  # by the number of digits that follow; none before the last
_ANY_MARK = f"[{_MARKS[1]}-{_MARKS[-1]}]"
_PIECES = rf" ?{_ANY_MARK}?\d| ?\p{{L}}+| ?[^\s\p{{L}}\d{_MARKS[1]}-{_MARKS[-1]}]+|\s"
_HELD_OUT = 8  # one of so many keys and numbers


Form = Literal["plain", "keyed", "asked"]


@dataclass(frozen=True)
class Domain:
    """Documents of `shortest` to `longest` tokens, evenly over the logarithm."""

    name: str
    form: Form
    shortest: int
    longest: int


def documents(domain: Domain, count: int, counter: Counter, *, held_out: bool, seed: int) -> Iterator[str]:
    """So many; the same for the same arguments. None is shorter than its needle and its question."""
    random = rng(seed, domain.name, int(held_out))
    noise, key_of = Noise(counter, NOISE), key_maker("words")
    shortest, longest = np.log([domain.shortest, domain.longest])
    while count:
        key, value = key_of(random), number(random)
        length, depth = np.exp(random.uniform(shortest, longest)), random.random()
        if _is_held_out(key) == _is_held_out(value) == held_out:
            bare = int(counter.count([_document(domain.form, [], 0, key, value)])[0])
            size, _, _ = noise.fill(0, round(length) - bare)
            lines = noise.lines(size)
            yield _document(domain.form, lines, round(depth * len(lines)), key, value)
            count -= 1


def _document(form: Form, lines: list[str], at: int, key: str, value: str) -> str:
    needle, answer = NEEDLE.format(values="numbers", key=key, value=value), f" {value}."
    prefix = _TASK.answer_prefix.format(values="number", query=key)
    if form == "plain":
        needle, prefix = (text.replace(f" for {key}", "") for text in (needle, prefix))
    context = "\n".join([*lines[:at], needle, *lines[at:]])
    if form == "asked":
        return _TASK.template.format(values="number", context=context, query=key) + prefix + answer
    return context + "\n" + prefix.lstrip() + answer


def _is_held_out(text: str) -> bool:
    return zlib.crc32(text.encode()) % _HELD_OUT == 0


def make_tokenizer() -> tokenizers.Tokenizer:
    """Bytes, the words of noise, needle and question, digits, and pieces of keys. Always the same."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(rf"(?=\d{{{after + 1}}}(?!\d))"), _MARKS[after]) for after in range(9, 0, -1)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_PIECES), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(Regex(_ANY_MARK), "")])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return tokenizer


def _texts() -> Iterator[str]:
    """The words of the frame so often that each becomes one token before any piece of a key does."""
    often = 2000
    yield from [_document("asked", [" ".join(NOISE)], 1, "", "")] * often
    yield from [" ".join(f" {digit * 7}" for digit in "0123456789")] * often
    for kind in ("adjective", "noun"):
        yield from (f" {word} -{word}" for word in vocabulary.listed(kind))
