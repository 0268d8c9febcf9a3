"""The text of HTML pages: what resiliparse takes for their main content."""

from __future__ import annotations

import re
from itertools import accumulate

MAX_PAGE = 64 << 20  # bytes
# What takes time that grows with the square of it: 40,000 elements in each other take 20 s, 100,000 attributes 40 s.
# Browsers stop at a depth of 512.
_MAX_DEPTH, _MAX_ATTRIBUTES = 1024, 4096
_BLOCK = re.compile(r"<(/?)(?:div|article)\b", re.IGNORECASE)
_LONG_TAG = re.compile(rf"<[^<>]{{{2 * _MAX_ATTRIBUTES},}}")


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
    depth = max(accumulate(-1 if found[1] else 1 for found in _BLOCK.finditer(html)), default=0)
    if depth > _MAX_DEPTH:
        raise UnusableError(f"nests too deep: {depth:,} elements in each other")
    attributes = max((len(found[0].split()) for found in _LONG_TAG.finditer(html)), default=0)
    if attributes > _MAX_ATTRIBUTES:
        raise UnusableError(f"has a tag of too many attributes: {attributes:,}")
    return extract_plain_text(html, preserve_formatting=True, main_content=True, alt_texts=False).strip()
