"""HTML and SVG that are safe by construction: whatever is no `Html` is text, and text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable

# Signs that one does not see, or that turn the direction of what follows: a reader should see that they are there.
_CONTROL = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"}
_UNSEEN = {0x7F: "␡", 0xFEFF: "�"} | {
    code: "�" for first, last in ((0x80, 0x9F), (0x202A, 0x202E), (0x2066, 0x2069)) for code in range(first, last + 1)
}
_SIGNS = _CONTROL | _UNSEEN | dict.fromkeys((0xFFFE, 0xFFFF, *range(0xD800, 0xE000)), "�")

VOID = frozenset({"meta", "input", "br", "link"})


class Html(str):
    """Markup, which is not escaped again."""

    __slots__ = ()


Child = str | Iterable["Child"]  # of which Html stands as it is


def escape(text: str) -> Html:
    return Html(html.escape(text.translate(_SIGNS)))


def el(tag: str, *children: Child, **attributes: str | float | None) -> Html:
    """An element. `class_` and `for_` write class and for, `stroke_width` stroke-width; None leaves one out."""
    said = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{said}>" if tag in VOID else f"<{tag}{said}>{join(children)}</{tag}>")


def join(children: Iterable[Child]) -> Html:
    return Html("".join(_render(child) for child in children))


def _render(child: Child) -> str:
    if isinstance(child, Html):
        return child
    return escape(child) if isinstance(child, str) else join(child)


def _value(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)
