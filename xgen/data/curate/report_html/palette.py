"""Which colour a domain has, everywhere on the page. No domain is red (dropped), orange (cut) or green (kept)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xgen.data.curate.report_model import Report
from xgen.drawing.markup import Html, el
from xgen.drawing.svg import legend

_NUM_COLOURS = 7
_REST = "rest"


@dataclass(frozen=True)
class Palette:
    domains: tuple[str, ...]  # the largest first

    @classmethod
    def of(cls, report: Report) -> Palette:
        read = report.steps[0].by_domain if report.steps else {}
        sizes = {domain.name: domain.bytes for domain in report.domains}
        sizes |= {name: flow.kept.bytes for name, flow in read.items()}
        return cls(tuple(sorted(sizes, key=lambda name: (-sizes[name], name))))

    def __call__(self, domain: str) -> str:
        """A class of the style sheet."""
        place = self.domains.index(domain) if domain in self.domains else _NUM_COLOURS
        return f"d{place}" if place < _NUM_COLOURS else _REST

    def order(self, domains: Iterable[str]) -> list[str]:
        places = {name: place for place, name in enumerate(self.domains)}
        return sorted(domains, key=lambda name: (places.get(name, len(places)), name))

    def stacked(self, amounts: Mapping[str, int]) -> dict[str, int]:
        """Amounts by class, in the order of the stack: domains without a colour of their own are one."""
        sums: dict[str, int] = {}
        for name in self.order(amounts):
            sums[self(name)] = sums.get(self(name), 0) + amounts[name]
        return sums

    def name_of(self, class_: str) -> str:
        return self._rest if class_ == _REST else self.domains[int(class_[1:])]

    @property
    def _rest(self) -> str:
        return f"{len(self.domains) - _NUM_COLOURS:,} other domains"

    def legend(self, *more: tuple[str, str]) -> Html:
        shown = [(self(name), name) for name in self.domains[:_NUM_COLOURS]]
        rest = [(_REST, self._rest)] if len(self.domains) > _NUM_COLOURS else []
        return legend(*shown, *rest, *more)

    def label(self, domain: str) -> Html:
        return el("span", el("i", class_=self(domain)), domain, class_="domain")
