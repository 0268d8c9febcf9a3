"""Which prompts a step trains on, and when their answers may be begun: arithmetic alone, the same on every rank.

The bound on staleness is kept where an answer begins, not by throwing answers away: those of step s are begun when the
weights are of version s - 1 - N at least (a version is the number of steps behind it), and wait for their step. So each
prompt belongs to one step, and none is lost or dropped as too old.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# Prompts `first` to `first + count - 1`.
Round = tuple[int, int]


@dataclass
class Allotment:
    """Prompts are handed out in the order of their numbers: to the steps in turn, `per_step` to each, and in between to
    a step some of whose prompts have taught nothing."""

    per_step: int
    staleness: int  # N
    last_step: int  # of the training
    next_prompt: int = 0
    rounds: dict[int, list[Round]] = field(default_factory=dict)  # of the steps that are not done, by step

    def begin(self, step: int) -> list[int]:
        """Steps whose answers are to be begun now that step `step` is next, and the weights of version `step - 1`."""
        newest = min(step + self.staleness, self.last_step)
        begun = [ahead for ahead in range(step, newest + 1) if ahead not in self.rounds]
        for ahead in begun:
            self.rounds[ahead] = [self._take(self.per_step)]
        return begun

    def refill(self, step: int, count: int) -> Round:
        """Further prompts for a step."""
        self.rounds[step].append(self._take(count))
        return self.rounds[step][-1]

    def done(self, step: int) -> list[Round]:
        """The step is trained; returns what it took."""
        return self.rounds.pop(step)

    def _take(self, count: int) -> Round:
        first, self.next_prompt = self.next_prompt, self.next_prompt + count
        return first, count
