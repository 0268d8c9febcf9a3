"""A report as Markdown and as text of a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from xgen.evals.report.sections import Report


def to_markdown(report: Report) -> str:
    parts = [f"# {report.title}\n", *(f"{said}\n" for said in report.said)]
    for section in report.sections:
        parts.append(f"## {section.title}\n")
        parts += [f"{said}\n" for said in section.said]
        parts += [f"![{section.title}]({picture})\n" for picture in section.pictures]
        parts += [table.to_markdown() for table in section.tables]
    return "\n".join(parts)


def to_text(report: Report, width: int = 80) -> Iterator[str]:
    """Lines; tables are cut where they are wider."""
    yield from _wrapped(report.title, width)
    for said in report.said:
        yield from _wrapped(said, width)
    for section in report.sections:
        yield ""
        yield section.title
        for said in section.said:
            yield from _wrapped(said, width)
        for table in section.tables:
            yield ""
            yield from (f"  {line}" if line else "" for line in table.to_text(width - 2))


def _wrapped(said: str, width: int) -> list[str]:
    return textwrap.wrap(said, width, break_long_words=False, break_on_hyphens=False)
