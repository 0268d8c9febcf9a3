"""What will happen to whom: a function of the seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["command", "training"]
RunFault = Literal["signal", "kill rank", "kill batch", "hang", "time limit", "NaN", "crash"]
ClusterFault = Literal[
    "preempt", "kill slurmd", "node down", "node lost", "disk full", "slurmctld at submit", "slurmctld at requeue"
]

# How often, of ten runs that meet one.
_COMMANDS: dict[RunFault, int] = {
    "signal": 3, "kill rank": 3, "kill batch": 1, "hang": 1, "time limit": 1, "NaN": 1, "crash": 1
}  # fmt: skip
_TRAININGS: dict[RunFault, int] = {"signal": 3, "kill rank": 3, "kill batch": 1, "hang": 1, "NaN": 1}
_LASTING: tuple[RunFault, ...] = ("NaN", "crash")  # what no other try helps against
_ROUND: tuple[ClusterFault, ...] = (
    "preempt", "preempt", "preempt", "kill slurmd", "node down", "node lost", "disk full", "slurmctld at submit",
    "slurmctld at requeue",
)  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """One run. `faults`: each with the step at which it comes, ascending."""

    number: int
    kind: Kind
    steps: int
    faults: tuple[tuple[RunFault, int], ...]

    @property
    def name(self) -> str:
        return f"{'train' if self.kind == 'training' else 'chain'}-{self.number}"

    def has(self, fault: RunFault) -> bool:
        return any(name == fault for name, _ in self.faults)

    @property
    def lasting(self) -> RunFault | None:
        """The fault that rightly ends the run, if there is one."""
        return next((name for name, _ in self.faults if name in _LASTING), None)


def plan(seed: int, num_commands: int, num_trainings: int, training_steps: int) -> list[Planned]:
    """The runs, in the order in which they are submitted."""
    draw = random.Random(seed)
    kinds: list[Kind] = ["command"] * num_commands
    kinds += ["training"] * num_trainings
    draw.shuffle(kinds)
    return [_planned(draw, number, kind, training_steps) for number, kind in enumerate(kinds)]


def _planned(draw: random.Random, number: int, kind: Kind, training_steps: int) -> Planned:
    weights = _COMMANDS if kind == "command" else _TRAININGS
    faults = [
        draw.choices(list(weights), list(weights.values()))[0] for _ in range(draw.choices((0, 1, 2), (1, 6, 3))[0])
    ]
    lasting = [fault for fault in faults if fault in _LASTING]
    faults = [fault for fault in dict.fromkeys(faults) if fault not in _LASTING] + lasting[:1]
    steps = training_steps if kind == "training" else 400 if "time limit" in faults else draw.randint(60, 120)
    reach = min(steps, 120)  # of one that its time limit ends, too
    at = sorted(draw.sample(range(6, reach - 6), len(faults)))
    return Planned(number, kind, steps, tuple(zip(faults, at, strict=True)))


def cluster_faults(seed: int) -> Iterator[tuple[float, ClusterFault, str]]:
    """Without end: seconds to wait, the fault, and the node that it is for."""
    draw = random.Random(f"cluster {seed}")
    while True:
        faults: Sequence[ClusterFault] = draw.sample(_ROUND, len(_ROUND))
        for fault in faults:
            yield draw.uniform(5, 15), fault, f"n{draw.randint(1, 4)}"
