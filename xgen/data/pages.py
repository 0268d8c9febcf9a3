"""The text of HTML pages: what resiliparse takes for their main content."""

from __future__ import annotations

import re
from itertools import accumulate

MAX_PAGE = 64 << 20  # bytes
# The time that main content takes grows with the square of how deep elements lie in each other: 40,000 take 20 s.
_MAX_DEPTH = 4096
_DIV = re.compile(r"<(/?)div\b", re.IGNORECASE)


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
    if html.count("<div") + html.count("<DIV") > _MAX_DEPTH:
        depth = max(accumulate(-1 if found[1] else 1 for found in _DIV.finditer(html)), default=0)
        if depth > _MAX_DEPTH:
            raise UnusableError(f"nests too deep: {depth:,} elements in each other")
    return extract_plain_text(html, preserve_formatting=True, main_content=True, alt_texts=False).strip()
