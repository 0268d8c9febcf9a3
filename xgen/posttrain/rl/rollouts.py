"""The answers of a step: from prompts by number to groups with verdicts, the same on every rank.

Of W ranks, rank r asks for the answers to prompts p with p % W == r; when its share is done on all of them, each gets
all groups. What the journal has is not generated again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from xgen.engine import Completion, Partial, Request, Sampling
from xgen.posttrain.rl.allotment import Allotment, Round
from xgen.posttrain.rl.answers import Answer, Group, Judged, Versions, answer_seed
from xgen.posttrain.rl.desk import Desk, Effort, Ticket
from xgen.posttrain.rl.journal import Begun, Journal, Key, Known
from xgen.spec import Rl

if TYPE_CHECKING:
    from xgen.data.chat.prompts import PromptSet, TokenPrompt

_SLICE = 0.5  # seconds between two looks at whether all ranks have their answers, and whether to stop


class StoppedWaitingError(Exception):
    """The ranks have agreed to stop while they waited for answers."""


@dataclass(frozen=True)
class Ranks:
    """This one among all; `told_to_stop` is asked by all of them together."""

    rank: int
    num: int
    group: dist.ProcessGroup
    told_to_stop: Callable[[], bool]

    def all_done(self, done: bool) -> bool:
        """Raises StoppedWaitingError, on all ranks."""
        left = torch.tensor([not done], dtype=torch.int32)
        dist.all_reduce(left, group=self.group)
        if self.told_to_stop():
            raise StoppedWaitingError
        return int(left) == 0

    def share(self, own: Any) -> list[Any]:
        """What each rank has, by rank."""
        if self.num == 1:
            return [own]
        found: list[Any] = [None] * self.num
        dist.all_gather_object(found, own, group=self.group)
        return found


@dataclass(frozen=True)
class Collected:
    """What a step has. `groups` in the order of their prompts; `efforts` of each rank since it began."""

    groups: tuple[Group, ...]
    rounds: tuple[Round, ...]
    efforts: tuple[Effort, ...]


@dataclass
class Waits:
    """Seconds for which the training stood still."""

    generate: float = 0.0
    verify: float = 0.0


@dataclass
class Rollouts:
    """Of one rank."""

    job: Rl
    prompts: PromptSet
    desk: Desk
    journal: Journal
    ranks: Ranks
    stop_tokens: tuple[int, ...]
    on_progress: Callable[[], None] = lambda: None  # told of every answer and verdict
    waits: Waits = field(default_factory=Waits)
    _known: dict[int, Mapping[Key, Known]] = field(default_factory=dict)  # by step

    def __post_init__(self) -> None:
        # What comes from now on is not looked for in the files of all ranks: a thousand would open a million a step.
        self._written = self.journal.steps()

    def collect(self, step: int, allotment: Allotment) -> Collected:
        """All groups of a step. Its answers are begun, and those of later steps as far as the bound on staleness lets
        them; further prompts are taken while too few of them teach. Raises EngineError and StoppedWaitingError."""
        for ahead in allotment.begin(step):
            self._ask_round(ahead, allotment.rounds[ahead][0])
        groups: list[Group] = []
        efforts: list[Effort] = []
        while True:
            rounds = allotment.rounds[step]
            number = len(efforts) // self.ranks.num
            shared = self.ranks.share((self._own_groups(step, rounds[number]), self.desk.effort))
            groups += sorted((group for own, _ in shared for group in own), key=lambda group: group.number)
            efforts += [effort for _, effort in shared]
            missing = allotment.per_step - sum(group.teaches for group in groups)
            if not self.job.dynamic_sampling or missing <= 0 or number + 1 == self.job.max_resampled:
                break
            if number + 1 == len(rounds):
                self._ask_round(step, allotment.refill(step, missing))
        self._known.pop(step, None)
        return Collected(tuple(groups), tuple(rounds), tuple(efforts[-self.ranks.num :]))

    def ask_again(self, allotment: Allotment) -> None:
        """What was asked for before the attempt began: the rounds of steps that are not done."""
        for step, rounds in allotment.rounds.items():
            for one in rounds:
                self._ask_round(step, one)

    def keep_partial(self) -> None:
        """Write down what has begun: the next attempt goes on from there."""
        for name, partial in self.desk.pending().items():
            if place := _place(name):
                begun = Begun(partial.tokens, partial.logprobs, None, partial.versions)
                self.journal.add_answer(*place, begun)

    def drop(self) -> None:
        """Forget all that is under way."""
        self.desk.drop()
        self._known.clear()
        self._written = self.journal.steps()

    def _own(self, one: Round) -> list[int]:
        first, count = one
        return [number for number in range(first, first + count) if number % self.ranks.num == self.ranks.rank]

    def _ask_round(self, step: int, one: Round) -> None:
        if step not in self._known:
            self._known[step] = self.journal.read(step) if step in self._written else {}
        for number in self._own(one):
            prompt = self.prompts.at(number)
            for answer in range(self.job.rollout.group):
                self._ask(step, (number, answer), prompt, self._known[step].get((number, answer)))

    def _ask(self, step: int, key: Key, prompt: TokenPrompt, known: Known | None) -> None:
        if known and self._is_too_old(step, known.begun.versions):
            known = None
        begun = known.begun if known else None
        rollout = self.job.rollout
        request = Request(
            id=_name(step, key),
            prompt=prompt.tokens,
            seed=answer_seed(self.job.seed, *key),
            sampling=Sampling(rollout.max_tokens, rollout.temperature, rollout.top_p, self.stop_tokens),
            begun=Partial(begun.tokens, begun.logprobs, begun.versions) if begun else None,
        )

        def generated(completion: Completion) -> None:
            self.on_progress()
            whole = Begun(completion.tokens, completion.logprobs, completion.finish, completion.versions)
            self.journal.add_answer(step, key, whole)

        def judged(verdict: Judged) -> None:
            self.on_progress()
            self.journal.add_verdict(step, key, verdict)

        ticket = Ticket(request, prompt, generated, judged)
        if known and begun and begun.finish:
            whole = Completion(request.id, begun.tokens, begun.logprobs, begun.finish, begun.versions, 0.0)
            self.desk.resume(ticket, whole, known.judged)
        else:
            self.desk.ask(ticket)

    def _own_groups(self, step: int, one: Round) -> list[Group]:
        """This rank's part of a round, when all ranks have theirs."""
        size, numbers = self.job.rollout.group, self._own(one)
        keys = {_name(step, (number, answer)): (number, answer) for number in numbers for answer in range(size)}
        answers: dict[str, Answer] = {}
        while True:
            wanted = keys.keys() - answers.keys()
            generating, began = self.desk.is_generating(wanted), time.perf_counter()
            if wanted and self.desk.wait(wanted, _SLICE):
                answers |= self.desk.take(wanted)
                for name in [name for name, answer in answers.items() if self._is_too_old(step, answer.versions)]:
                    del answers[name]  # of a server that was late to take new weights
                    self._ask(step, keys[name], self.prompts.at(keys[name][0]), None)
            all_done = self.ranks.all_done(keys.keys() == answers.keys())
            if generating:
                self.waits.generate += time.perf_counter() - began
            else:
                self.waits.verify += time.perf_counter() - began
            if all_done:
                break
        return [
            Group(
                number,
                self.prompts.at(number).source,
                tuple(answers[_name(step, (number, answer))] for answer in range(size)),
            )
            for number in numbers
        ]

    def _is_too_old(self, step: int, versions: Versions) -> bool:
        """Whether the step must not learn from an answer."""
        return any(version < step - 1 - self.job.rollout.staleness for version, _ in versions)


def _name(step: int, key: Key) -> str:
    return f"step-{step}.{key[0]}.{key[1]}"


def _place(name: str) -> tuple[int, Key] | None:
    """Step, prompt and answer; None for what is no answer of a step."""
    kind, _, rest = name.partition("-")
    if kind != "step":
        return None
    step, prompt, answer = map(int, rest.split("."))
    return step, (prompt, answer)
