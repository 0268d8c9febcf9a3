"""A comparison as text of a terminal, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from xgen.drawing.tables import Row, Table
from xgen.drawing.wording import many, tokens
from xgen.evals.compare.comparison import Comparison
from xgen.evals.compare.score_words import alone, published_said, scores_said
from xgen.evals.compare.training_words import training_said
from xgen.evals.report.words import NOTHING, QUALITIES

_KEYS_SHOWN = 12


@dataclass(frozen=True)
class Part:
    """A heading, and sentences and tables in their order below it."""

    title: str
    content: tuple[str | Table, ...]


def parts(found: Comparison, pictures: Sequence[str] = ()) -> Iterator[Part]:
    """`pictures`: files beside the text."""
    letters = [_letter(at) for at in range(len(found.runs))]
    named = [f"{letter} is {run.name}" for letter, run in zip(letters, found.runs, strict=True)]
    yield Part("Runs", (*named, _facts(found, letters), *found.notes))
    if found.spec:
        yield Part("Keys of their specs that differ", tuple(_spec(found, letters)))
    for letter, pair in zip(letters[1:], found.pairs, strict=True):
        if pair.training:
            yield Part(f"Training: {letter} against A", tuple(training_said(pair.training, letter)))
        if pair.scores or pair.tasks or pair.only_one:
            yield Part(f"Scores: {letter} against A", tuple(scores_said(pair, letter, found.level)))
    if not found.pairs and found.scores:
        yield Part("Scores", (alone(found.scores[0]),))
    for letter, run in zip(letters, found.runs, strict=True):
        if of := [one for one in found.published if one.run == run.name]:
            yield Part(f"{letter} minus published scores", tuple(published_said(of)))
    if found.published:
        sources = dict.fromkeys((one.quality, one.source) for one in found.published)
        yield Part("Sources of the published scores", (QUALITIES, *(f"{quality}: {said}" for quality, said in sources)))
    if pictures:
        yield Part("Pictures", tuple(f"![{name}]({name})" for name in pictures))


def to_text(found: Comparison, width: int = 80) -> Iterator[str]:
    for at, part in enumerate(parts(found)):
        if at:
            yield ""
        yield part.title
        for each in part.content:
            if isinstance(each, Table):
                yield ""
                yield from (f"  {line}" if line else "" for line in each.to_text(width - 2))
            else:
                yield from textwrap.wrap(
                    each, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False,
                    break_on_hyphens=False,
                )  # fmt: skip


def to_markdown(found: Comparison, pictures: Sequence[str] = ()) -> str:
    names = " and ".join(run.name for run in found.runs)
    said = [f"# {names}\n"]
    for part in parts(found, pictures):
        said.append(f"## {part.title}\n")
        said += [each.to_markdown() if isinstance(each, Table) else f"{each}\n" for each in part.content]
    return "\n".join(said)


def _letter(at: int) -> str:
    return ascii_uppercase[at] if at < len(ascii_uppercase) else f"R{at + 1}"


def _facts(found: Comparison, letters: Sequence[str]) -> Table:
    rows: list[Row] = []
    for name, said in (
        ("kind", [run.kind or NOTHING for run in found.runs]),
        ("model", [run.model or NOTHING for run in found.runs]),
        ("parameters", [_tokens(run.parameters) for run in found.runs]),
        ("steps", [NOTHING if run.steps is None else f"{run.steps:,}" for run in found.runs]),
        ("tokens", [_tokens(run.tokens) for run in found.runs]),
        ("tokens a second", [_tokens(run.tokens_per_second) for run in found.runs]),
        ("loss at the end", [NOTHING if run.loss is None else f"{run.loss:.4f}" for run in found.runs]),
        ("GPU-hours", [NOTHING if run.hours is None else f"{run.hours:,.4g}" for run in found.runs]),
        ("effective training time", [NOTHING if run.ettr is None else f"{run.ettr:.1%}" for run in found.runs]),
        ("restarts", [NOTHING if run.restarts is None else f"{run.restarts}" for run in found.runs]),
        ("scores of step", [f"{run.evaluated:,}" if run.evaluated else NOTHING for run in found.runs]),
        ("evaluated by", [", ".join(dict.fromkeys(run.evaluations.values())) or NOTHING for run in found.runs]),
    ):
        if any(each != NOTHING for each in said):
            rows.append((name, *said))
    return Table(("", *letters), tuple(rows))


def _tokens(amount: float | None) -> str:
    return NOTHING if amount is None else tokens(amount)


def _spec(found: Comparison, letters: Sequence[str]) -> Iterator[str]:
    for one in found.spec[:_KEYS_SHOWN]:
        values = (f"{letter} {_value(value)}" for letter, value in zip(letters, one.values, strict=True))
        yield f"{one.key}: {', '.join(values)}"
    if (more := len(found.spec) - _KEYS_SHOWN) > 0:
        yield f"and {many(more, 'more key')}: --json has all"


def _value(value: object) -> str:
    said = NOTHING if value is None else value if isinstance(value, str) else f"{value}"
    return said if len(said) <= 40 else f"{said[:39]}…"
