"""What nodes say of themselves (node.sh, and the checks that every job makes), as it is read."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_LINE = re.compile(r"^(?:\s*\d+: )?xgen-(doctor|health) (\S+) (\S+) ?(.*)$")


@dataclass(frozen=True)
class Checked:
    """A finding of the checks of nodes. `level`: bad or note."""

    check: str
    level: str
    text: str


@dataclass(frozen=True)
class NodeFacts:
    """Of one node. What it did not say is not among `said`."""

    node: str
    said: Mapping[str, str]
    checked: tuple[Checked, ...] = ()
    time: int | None = None  # seconds since 1970, by its clock
    finished: bool = False  # it said all that it had to say

    def below(self, prefix: str) -> dict[str, str]:
        """`{"n2": "eth0"}` of `route.n2 eth0` for the prefix `route`."""
        return {key.removeprefix(f"{prefix}."): text for key, text in self.said.items() if key.startswith(f"{prefix}.")}


def read_facts(lines: Iterable[str]) -> list[NodeFacts]:
    """Of all nodes that said anything, by name."""
    said: dict[str, dict[str, str]] = defaultdict(dict)
    checked: dict[str, list[Checked]] = defaultdict(list)
    times: dict[str, int] = {}
    finished: set[str] = set()
    for line in lines:
        if (found := _LINE.match(line.rstrip())) is None:
            continue
        kind, node, key, text = found.groups()
        level, _, rest = text.partition(" ")
        if kind == "doctor":
            said[node][key] = text.strip()
        elif level in ("bad", "note"):
            checked[node].append(Checked(key, level, rest))
        elif level == "time" and rest.isdecimal():
            times[node] = int(rest)
        elif level == "done":
            finished.add(node)
    return [
        NodeFacts(node, said[node], tuple(checked[node]), times.get(node), node in finished) for node in sorted(said)
    ]


@dataclass(frozen=True)
class Answer:
    """`when`: the asking machine's clock before and after; `seen_here`: the nodes whose file in the run root was read
    there; `locked`: it held the lock that they tried; `error`: what srun said of those that did not answer."""

    nodes: list[NodeFacts]
    when: tuple[float, float]
    seen_here: tuple[str, ...] = ()
    locked: bool = True
    error: str = ""
    timed_out: bool = False
