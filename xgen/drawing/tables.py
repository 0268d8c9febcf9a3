"""Tables as Markdown, and as text that fits into a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_GAP = 2


@dataclass(frozen=True)
class Cell:
    """`more` stands behind the text where there is room, as an interval does."""

    text: str
    more: str = ""


Row = tuple[str | Cell, ...]


@dataclass(frozen=True)
class Table:
    """The first `left` columns are words, which every block of a table that is cut has again; a head that ends with |
    is of words too, the others of numbers. Every row has as many cells as there are heads."""

    heads: tuple[str, ...]
    rows: tuple[Row, ...]
    left: int = 1

    def to_markdown(self) -> str:
        words = [self._is_words(column) for column in range(len(self.heads))]
        lines = [self.heads_shown, *([_whole(cell) for cell in row] for row in self.rows)]
        cells = [[cell.replace("\n", " ").replace("|", "\\|") for cell in line] for line in lines]
        rule = ["---" if word else "--:" for word in words]
        return "".join(f"| {' | '.join(line)} |\n" for line in (cells[0], rule, *cells[1:]))

    def to_text(self, width: int = 80) -> list[str]:
        """Lines of at most `width`, as far as a column has room in it: first without what stands behind, then in
        blocks of columns one below the other."""
        for show in (_whole, _short):
            lines = [self.heads_shown, *([show(cell) for cell in row] for row in self.rows)]
            widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
            if sum(widths) + _GAP * (len(widths) - 1) <= width:
                return self._lines(lines, widths, list(range(len(widths))))
        blocks = [self._lines(lines, widths, columns) for columns in self._blocks(widths, width)]
        return [line for number, block in enumerate(blocks) for line in (*([""] if number else []), *block)]

    @property
    def heads_shown(self) -> list[str]:
        return [head.rstrip("|") for head in self.heads]

    def _is_words(self, column: int) -> bool:
        return column < self.left or self.heads[column].endswith("|")

    def _lines(self, lines: Sequence[Sequence[str]], widths: Sequence[int], columns: Sequence[int]) -> list[str]:
        return [
            (" " * _GAP)
            .join(line[at].ljust(widths[at]) if self._is_words(at) else line[at].rjust(widths[at]) for at in columns)
            .rstrip()
            for line in lines
        ]

    def _blocks(self, widths: Sequence[int], width: int) -> Iterator[list[int]]:
        first = list(range(self.left))
        block, used = list(first), sum(widths[at] + _GAP for at in first)
        for at in range(self.left, len(widths)):
            if len(block) > self.left and used + widths[at] > width:
                yield block
                block, used = list(first), sum(widths[each] + _GAP for each in first)
            block.append(at)
            used += widths[at] + _GAP
        yield block


def _whole(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else f"{cell.text} {cell.more}".rstrip()


def _short(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else cell.text
