"""Records as they are read, and as the chat template renders them; what cannot be used is told with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from xgen.data.chat.meta import Kind
from xgen.data.chat.schema import RecordError, conversation_of, pair_of
from xgen.data.chat.template import BrokenTemplateError, Learn, Rendered
from xgen.data.chat.tokenizer import ChatTokenizer
from xgen.data.errors import StoreError
from xgen.data.readers import Bad, place_of, read_rows
from xgen.data.units import Unit

MAX_BYTES = 64 << 20  # of a record: what is longer is no conversation

LeaveOut = Callable[[str, int, str], None]  # is told file, line and reason
Row = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class RenderedRecord:
    """A conversation, or both of a pair, as text."""

    file: str
    line: int
    rendered: tuple[Rendered, ...]


def read_as(unit: Unit, make: Callable[[Row], T], leave_out: LeaveOut) -> Iterator[tuple[str, int, T]]:
    """File, line and what `make` makes of each record of a unit; those for which it raises RecordError are left out.

    Raises StoreError for a template that is not fit for the job.
    """
    for file, line, row in read_rows(unit, MAX_BYTES):
        if isinstance(row, Bad):
            leave_out(file, line, row.reason)
            continue
        try:
            if not isinstance(row, dict):
                raise RecordError(f"is no object: but {type(row).__name__}")
            made = make(row)
        except RecordError as error:
            leave_out(file, line, str(error))
        except BrokenTemplateError as error:
            raise StoreError(error.place, f"{error.what} ({place_of(file, line)})", error.fix) from None
        else:
            yield file, line, made


def render_records(
    tokenizer: ChatTokenizer, kind: Kind, learn: Learn, unit: Unit, leave_out: LeaveOut
) -> Iterator[RenderedRecord]:
    """Of each record of a unit; raises as `read_as`."""

    def render(row: Row) -> tuple[Rendered, ...]:
        if kind == "conversations":
            only = conversation_of(row)
            return (tokenizer.template(only).render(only, learn),)
        pair = pair_of(row)
        # What both answers repeat cancels out only of losses that do not divide by their length.
        both = (pair.chosen, pair.rejected)
        return tuple(tokenizer.template(own).render(own, learn, pair.num_shared) for own in both)

    for file, line, rendered in read_as(unit, render, leave_out):
        yield RenderedRecord(file, line, rendered)
