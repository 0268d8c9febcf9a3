"""A page as a file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from xgen.drawing.markup import Child, Html, el

_STYLE = Path(__file__).with_name("page.css")


def page(title: str, *body: Child, script: str = "") -> str:
    """A file that needs nothing else. A browser runs its own script and loads nothing, whatever the text in it says."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'" if script else "style-src 'unsafe-inline'"
    policy = f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", title),
        el("style", Html(_STYLE.read_text(encoding="utf-8"))),
    )
    scripts = el("script", Html(script)) if script else ()
    return f"<!doctype html>\n{el('html', head, el('body', *body, scripts), lang='en')}\n"
