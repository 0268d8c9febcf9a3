"""Two trainings against each other, in words."""

from __future__ import annotations

from collections.abc import Iterator

from xgen.drawing.tables import Cell, Row, Table
from xgen.drawing.wording import many, tokens
from xgen.evals.compare.score_words import word
from xgen.evals.compare.trained import LossTest, TrainingDifference


def training_said(found: TrainingDifference, letter: str) -> Iterator[str | Table]:
    if found.why_not:
        yield f"Losses are not compared: {found.why_not}."
    if found.losses:
        heads = ("loss at", "A", letter, f"{letter} - A", "|")
        yield Table(heads, tuple(_loss(one) for one in found.losses))
        for one in found.losses:
            also = ", which are equal tokens" if one.equal == "steps and tokens" else ""
            at = f"{tokens(one.at)} tokens" if one.equal == "tokens" else f"step {one.at:,}"
            yield f"Means over the last {many(one.window, 'point')} up to {at}{also}."
    yield from _reached(found, letter)
    if found.speed:
        yield f"Speed: {letter} has {found.speed:.2f} times the tokens a second of A."
    if found.validation:
        rows: list[Row] = []
        for domain in found.validation:
            a, b = (domain.first, domain.other) if not (found.why_not and domain.bits) else domain.bits
            rows.append((domain.domain, f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}"))
        what = "bits a byte" if found.why_not else "loss"
        yield Table((f"held-out {what}", "A", letter, f"{letter} - A"), tuple(rows))
        at = tokens(found.validation[0].tokens)
        yield f"After {at} tokens. One number each: no test can tell whether these differences are real."


def _loss(one: LossTest) -> Row:
    difference = Cell(f"{one.test.mean:+.4f}", f"[{one.test.low:+.4f}, {one.test.high:+.4f}]")
    name = f"equal {one.equal.partition(' ')[0]}"
    return name, f"{one.first:.4f}", f"{one.other:.4f}", difference, word(one.verdict, one.test)


def _reached(found: TrainingDifference, letter: str) -> Iterator[str]:
    if found.why_not or not found.losses:
        return
    for who, of, at in ((letter, "A", found.reached_by_other), ("A", letter, found.reached_by_first)):
        if at is not None:
            yield f"{who} is at the loss with which {of} ends after {tokens(at)} tokens."
        else:
            yield f"{who} never is at the loss with which {of} ends."
