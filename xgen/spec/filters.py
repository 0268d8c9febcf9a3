"""Thresholds of the filters of a curation, with the published defaults. None switches a rule off.

Sources: Gopher, arXiv 2112.11446, A.1.1 and table A1; C4, JMLR 21 (2020), 2.2, and its code in TensorFlow Datasets
(c4_utils.py); FineWeb, arXiv 2406.17557, 3.6. Names of documents' measures are those of the traces.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from xgen.spec.base import Count as _Count
from xgen.spec.base import Number, Strict

Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[_Count, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]


def _says(text: str) -> object:
    return Field(description=text)


class GopherQuality(Strict):
    """Is this prose? Length, words, symbols, lists."""

    min_words: Annotated[Count | None, _says("words that are more than symbols, at least")] = 50
    max_words: Annotated[Count | None, _says("words that are more than symbols, at most")] = 100_000
    min_mean_word_length: Annotated[Positive | None, _says("mean length of a word in characters, at least")] = 3
    max_mean_word_length: Annotated[Positive | None, _says("mean length of a word in characters, at most")] = 10
    max_hashes_per_word: Annotated[Positive | None, _says("signs # for each word, at most")] = 0.1
    max_ellipses_per_word: Annotated[Positive | None, _says("ellipses for each word, at most")] = 0.1
    max_bullet_lines: Annotated[Share | None, _says("share of lines that start with a bullet, at most")] = 0.9
    max_ellipsis_lines: Annotated[Share | None, _says("share of lines that end with an ellipsis, at most")] = 0.3
    min_letter_words: Annotated[Share | None, _says("share of words with a letter in them, at least")] = 0.8
    min_stop_words: Annotated[Count | None, _says("different stop words in the text, at least")] = 2
    stop_words: Annotated[tuple[str, ...], _says("words that prose has, in lower case")] = (
        "the", "be", "to", "of", "and", "that", "have", "with",
    )  # fmt: skip


class GopherRepetition(Strict):
    """Does it say the same again and again? Lines, paragraphs, runs of words (n-grams); shares of characters."""

    max_duplicate_paragraphs: Annotated[Share | None, _says("share of paragraphs that were there before")] = 0.3
    max_duplicate_paragraph_chars: Annotated[Share | None, _says("their share of the characters")] = 0.2
    max_duplicate_lines: Annotated[Share | None, _says("share of lines that were there before")] = 0.3
    max_duplicate_line_chars: Annotated[Share | None, _says("their share of the characters")] = 0.2
    max_top_2_gram: Annotated[Share | None, _says("share of characters in the most frequent pair of words")] = 0.2
    max_top_3_gram: Annotated[Share | None, _says("the same of three words")] = 0.18
    max_top_4_gram: Annotated[Share | None, _says("the same of four words")] = 0.16
    max_duplicate_5_grams: Annotated[Share | None, _says("share of characters in runs of five that came before")] = 0.15
    max_duplicate_6_grams: Annotated[Share | None, _says("the same of six words")] = 0.14
    max_duplicate_7_grams: Annotated[Share | None, _says("the same of seven words")] = 0.13
    max_duplicate_8_grams: Annotated[Share | None, _says("the same of eight words")] = 0.12
    max_duplicate_9_grams: Annotated[Share | None, _says("the same of nine words")] = 0.11
    max_duplicate_10_grams: Annotated[Share | None, _says("the same of ten words")] = 0.10


class C4(Strict):
    """Lines that are no sentences are cut out of the text; then there must be sentences left.

    FineWeb uses these rules with `terminal_punctuation=False`.
    """

    terminal_punctuation: Annotated[bool, _says("cut lines that do not end with one of . ? ! \" '")] = True
    min_words_per_line: Annotated[Count | None, _says("cut lines with fewer words between spaces")] = 3
    max_word_chars: Annotated[Count | None, _says("cut lines with a longer word, in characters")] = 1000
    citations: Annotated[bool, _says("cut out [1], [edit] and [citation needed]")] = True
    javascript: Annotated[bool, _says("cut lines with the word javascript")] = True
    policies: Annotated[bool, _says("cut lines about cookies, terms of use and privacy")] = True
    lorem_ipsum: Annotated[bool, _says('drop documents with "lorem ipsum"')] = True
    curly_brackets: Annotated[bool, _says("drop documents with a curly bracket: source code")] = True
    min_sentences: Annotated[Count | None, _says("sentences left, at least")] = 5


class FineWeb(Strict):
    """Is it a list, a menu, a broken extraction?"""

    min_terminal_lines: Annotated[Share | None, _says("share of lines with punctuation at the end, at least")] = 0.12
    max_short_lines: Annotated[Share | None, _says("share of short lines, at most")] = 0.67
    short_line_chars: Annotated[Count, _says("what is a short line, in characters")] = 30
    max_duplicate_line_chars: Annotated[Share | None, _says("share of characters in lines that came before")] = 0.01
    max_new_lines_per_word: Annotated[Positive | None, _says("line breaks for each word, at most")] = 0.3


class Language(Strict):
    """Documents in other languages go, and those whose language is not sure. 0.65: FineWeb, for fastText's lid.176."""

    languages: Annotated[tuple[str, ...], _says("codes of the model, en or eng_Latn; none: any")] = ()
    min_score: Annotated[Share | None, _says("probability of the language, at least")] = 0.65
    model: Annotated[str | None, _says("a fastText model (lid.176.bin, GlotLID); default: langid.py's own")] = None
    sample_bytes: Annotated[int, Field(ge=64), _says("only the beginning of a text is looked at")] = 8192


class Urls(Strict):
    """Blocked sites and words in addresses, as RefinedWeb and FineWeb do (arXiv 2306.01116, G.1). The lists are yours.

    A list is a file with an entry a line; lines that start with # do not count.
    """

    domains: Annotated[tuple[str, ...], _says("files of sites; their subdomains go with them")] = ()
    urls: Annotated[tuple[str, ...], _says("files of whole addresses")] = ()
    words: Annotated[tuple[str, ...], _says("files of words: one between signs of the address drops it")] = ()
    soft_words: Annotated[tuple[str, ...], _says("files of words of which it takes several")] = ()
    max_soft_words: Annotated[Count, _says("soft words in an address, at most")] = 1
    parts: Annotated[tuple[str, ...], _says("files of letters: anywhere in the address, signs left out")] = ()


class Pattern(Strict):
    """Regular expressions over lines. At least one of `cut` and `max_share` is what it is for."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$"), _says("stands in the trace")]
    expression: Annotated[str, _says("Python's syntax; found anywhere in a line, without its line break")]
    cut: Annotated[bool, _says("cut the lines that match out of the text")] = False
    max_share: Annotated[Share | None, _says("drop documents with a larger share of such lines")] = None


class Lines(Strict):
    """Rules of one's own, one after the other; each sees the lines that are left."""

    patterns: tuple[Pattern, ...] = ()


class Pii(Strict):
    """What names or unlocks a person is replaced by a placeholder, and counted. None leaves it as it is."""

    email: Annotated[str | None, _says("for addresses of mail")] = "<email>"
    ip: Annotated[str | None, _says("for public addresses of the Internet, IPv4")] = "<ip>"
    phone: Annotated[str | None, _says("for telephone numbers: +49 30 1234567, (555) 123-4567")] = "<phone>"
    key: Annotated[str | None, _says("for keys and tokens with a known beginning, and private keys")] = "<key>"
    card: Annotated[str | None, _says("for numbers of payment cards and IBANs whose checksum is right")] = "<card>"
    max_per_kb: Annotated[Positive | None, _says("drop documents with more of all these in 1,000 bytes")] = None
