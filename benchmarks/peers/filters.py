"""Runs in the peers' environment: python filters.py WHAT TEXTS.json RESULT.json, with datatrove's own filters.

`decide`: the reason of each filter for each text, "" where it is kept, and the text that C4 leaves. `time`: seconds of
CPU of each filter over all texts, and of the chain of FineWeb, in which a dropped text is not seen again.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.utils.text import split_into_parts, split_into_words

FILTERS: dict[str, BaseFilter] = {
    "gopher_repetition": GopherRepetitionFilter(),
    "gopher_quality": GopherQualityFilter(),
    "c4": C4QualityFilter(),
    "c4_any_ending": C4QualityFilter(filter_no_terminal_punct=False),
    "fineweb": FineWebQualityFilter(),
}
CHAIN = ("gopher_repetition", "gopher_quality", "c4_any_ending", "fineweb")


def main() -> None:
    texts = json.loads(Path(sys.argv[2]).read_text())
    result = [decide(text) for text in texts] if sys.argv[1] == "decide" else measure(texts)
    Path(sys.argv[3]).write_text(json.dumps(result))


def decide(text: str) -> dict[str, object]:
    result: dict[str, object] = {"words": split_into_words(text)}
    for name in FILTERS:
        result[name], left = apply(name, text)
        if name.startswith("c4"):
            result[f"{name}_text"] = left
    result["chain"] = chain(text)
    return result


def apply(name: str, text: str) -> tuple[str, str]:
    """(reason, text that is left). A text on which datatrove fails counts as dropped."""
    document = Document(text=text, id="0")
    try:
        kept = FILTERS[name].filter(document)
    except ZeroDivisionError:
        return "divided by zero", text
    return ("", document.text) if kept is True else (kept[1], document.text)


def chain(text: str) -> str:
    for name in CHAIN:
        reason, text = apply(name, text)
        if reason:
            return f"{name}.{reason}"
    return ""


def measure(texts: list[str]) -> dict[str, float]:
    chain(texts[0])  # loads the tokenizer
    seconds = {}
    for name in (*FILTERS, "chain"):
        split_into_parts.cache_clear()
        began = time.process_time()
        for text in texts:
            chain(text) if name == "chain" else apply(name, text)
        seconds[name] = time.process_time() - began
    return seconds


if __name__ == "__main__":
    main()
