"""`xgen data trace`: what became of one document of a curation, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import JsonOption, print_json, usage

if TYPE_CHECKING:
    from xgen.data.curate.steps.history import Check, Drop, History

OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a curated corpus, or of one under way.")]
NameArgument = Annotated[str, typer.Argument(metavar="ID", help="The id of the record in its input.")]
NumberOption = Annotated[
    bool, typer.Option("--number", help="ID is the document's number, as the report and its tables have it.")
]
WorkOption = Annotated[
    Path | None, typer.Option("--work", metavar="FOLDER", help="The curation's work folder; default: OUT.work.")
]
_SHOWN = 20  # records with one id


def command(
    out: OutArgument,
    name: NameArgument,
    number: NumberOption = False,
    work: WorkOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what became of a document: what every filter measured of it, which rule dropped it, or its copies.

    For example: xgen data trace .cache/tiny-corpus spam/12
    """
    from xgen.data.curate.steps.history import history, open_work, with_id
    from xgen.data.errors import StoreError

    plain = name.replace(",", "")
    if number and not plain.isdecimal():
        usage(f"{name}: is no number; write that of a document, or leave out --number for an id")
    folder = work or out.absolute().with_name(f"{out.absolute().name}.work")
    try:
        context = open_work(folder)
        numbers = [int(plain)] if number else with_id(context, name)
        found = [history(context, one) for one in numbers[:_SHOWN]]
    except StoreError as error:
        usage(str(error))
    if not found:
        keys = "" if context.has_ids else ": no input of the spec has keys.id"
        hint = f"; for document {int(plain):,} write --number" if plain.isdecimal() else ""
        usage(f"{folder}: no record has the id {name!r}{keys}{hint}")
    if as_json:
        print_json(found)
        return
    for one in found:
        _show(one)
    if len(numbers) > _SHOWN:
        print(f"and {len(numbers) - _SHOWN:,} records more that have this id")


def _show(one: History) -> None:
    print(f"document {one.number:,}{f'  {one.id}' if one.id else ''}  ({one.place}), domain {one.domain}")
    if one.dropped:
        print(f"  dropped by {one.dropped.rule}{_why(one.dropped, one.cluster)}")
    elif one.kept:
        score = "" if one.kept.score is None else f", log-odds of being good {one.kept.score:.4g}"
        print(f"  kept: {one.kept.bytes:,} bytes, {one.kept.tokens:,} tokens{score}")
        print(f"  it stands for {one.cluster:,} of its kind; copies in the mixtures: {_copies(one.kept.copies)}")
    else:
        print("  the filters kept it; the steps after them have not run yet")
    if one.checks:
        width = max(len(check.rule) for check in one.checks)
        print(f"  {'rule':<{width}}  {'measured':>10}  threshold")
        for check in one.checks:
            dropped = "  dropped it" if check.dropped else ""
            print(f"  {check.rule:<{width}}  {_value(check.value):>10}  {_bounds(check)}{dropped}")
    for line in one.excerpt.splitlines()[:4]:
        print(f"  | {line[:110]}")


def _why(drop: Drop, cluster: int | None) -> str:
    if drop.rule.startswith("leaks."):
        return f": it holds item {drop.other:,} of the set"
    if drop.other is not None:
        has = "has this id" if drop.rule.startswith("ids.") else f"stays, of {cluster:,} documents"
        return f": document {drop.other:,}{f'  {drop.other_id}' if drop.other_id else ''} ({drop.other_place}) {has}"
    if drop.value is None:
        return ""
    return f": measured {_value(drop.value)}" + (
        "" if drop.threshold is None else f", threshold {_value(drop.threshold)}"
    )


def _bounds(check: Check) -> str:
    sides = ((">=", check.least), ("<=", check.most))
    return " and ".join(f"{sign} {_value(bound)}" for sign, bound in sides if bound is not None)


def _copies(copies: dict[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in copies.items()) or "not planned yet"


def _value(number: float) -> str:
    from xgen.drawing.wording import value

    return value(number)
