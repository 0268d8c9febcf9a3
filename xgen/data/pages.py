"""The text of HTML pages: what resiliparse takes for their main content."""

from __future__ import annotations

import re
from collections import Counter

MAX_PAGE = 64 << 20  # bytes
# What takes time that grows with the square of it: each element is looked at from all that are in it, each attribute
# from all others of its tag. 40,000 div in each other take 20 s, and so do 1,000 with 200,000 p in them.
_MAX_STEPS, _MAX_ATTRIBUTES = 10_000_000, 4096
_WITHOUT_TAGS = "|".join(
    [r"<!--(?:[^-]++|-(?!->))*+"]
    + [rf"<(?i:{name})\b(?:[^<]++|<(?!/(?i:{name})))*+" for name in ("script", "style", "textarea", "title", "iframe")]
)
_ATTRIBUTE = r"""[\s/]*+[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:"[^"]*+"?|'[^']*+'?|[^\s>]*+))?+"""
_OPENED = r"<[a-zA-Z][^\s/>]*+"
_PARTS = re.compile(  # to where a tag begins that has more attributes
    rf"(?:[^<]++|</[^<]*+|{_WITHOUT_TAGS}|{_OPENED}(?:{_ATTRIBUTE}){{0,{_MAX_ATTRIBUTES}}}+[\s/]*+(?:>|\Z)|<(?![a-zA-Z]))*+"
)
_TAG = re.compile(rf"{_WITHOUT_TAGS}|<(/?)([a-z][^\s/>]*+)(?:{_ATTRIBUTE})*+")
# They end where the next one begins, or hold nothing, as what is without tags does, whose name is not sought.
_FLAT = frozenset(
    (
        *("p", "li", "dt", "dd", "option", "tr", "td", "th", "tbody", "thead", "tfoot", "html", "head", "body"),
        *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "wbr", ""),
    )
)


class UnusableError(Exception):
    """Why a page or a record gives no document; what differs from one to the next comes after a colon."""


def text_of(page: bytes, charset: str | None = None) -> str:
    """Main content, a line a block; "" where there is none.

    `charset` is what the server said; else the page's own, else the likeliest. Bytes that are none of it become U+FFFD.
    Raises UnusableError.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

    if len(page) > MAX_PAGE:
        raise UnusableError(f"is longer than {MAX_PAGE:,} bytes")
    encoding = map_encoding_to_html5(charset) if charset else detect_encoding(page, from_html_meta=True)
    html = bytes_to_str(page, encoding or "utf-8", errors="replace", fallback_encodings=())
    _check(html)
    return extract_plain_text(html, preserve_formatting=True, main_content=True, alt_texts=False).strip()


def _check(html: str) -> None:
    """Raises UnusableError for a page that would take minutes."""
    parts = _PARTS.match(html)
    assert parts  # it takes nothing for one, too
    if (end := parts.end()) < len(html):
        raise UnusableError(
            f"has a tag of too many attributes: more than {_MAX_ATTRIBUTES:,}, {html[end : end + 40]!r}"
        )
    if (html.count("<") - html.count("</")) ** 2 < 2 * _MAX_STEPS:
        return
    opened, depth, deepest, steps = Counter[str](), 0, 0, 0
    for closes, name in _TAG.findall(html.lower()):
        if closes:
            if opened[name]:
                opened[name] -= 1
                depth -= 1
            continue
        if name not in _FLAT:
            opened[name] += 1
            depth += 1
            deepest = max(depth, deepest)
        steps += depth
    if steps > _MAX_STEPS:
        raise UnusableError(f"nests too deep: {deepest:,} elements in each other, {steps:,} steps from all to the top")
