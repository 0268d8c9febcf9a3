"""Pass rates on held-out prompts, in `metrics/evaluation.jsonl`: before the first step, every N, after the last."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xgen.data.chat.prompts import PromptSource, read_evaluation
from xgen.data.permutation import shuffle_keys
from xgen.engine import Request, Sampling
from xgen.posttrain.rl.answers import Answer
from xgen.posttrain.rl.desk import Ticket
from xgen.posttrain.rl.rollouts import StoppedWaitingError
from xgen.train.agreement import Agreement
from xgen.train.records import RecordFile
from xgen.train.together import from_rank_0

if TYPE_CHECKING:
    from xgen.posttrain.rl.trainer import RlTrainer

_SLICE = 0.5  # seconds between two looks at whether all ranks have their answers, and whether to stop


@dataclass(frozen=True)
class Passed:
    """Of one source. `pass_rate` and `reward`: means over its prompts of the mean over their answers; None where no
    answer has a verdict."""

    pass_rate: float | None
    reward: float | None
    prompts: int
    answers: int
    failed: int  # answers without a verdict
    response_tokens: float
    truncated: float  # share


@dataclass(frozen=True)
class EvaluationRecord:
    """One line of `metrics/evaluation.jsonl`."""

    step: int
    tokens: int  # trained on since step 0
    seconds: float
    sources: Mapping[str, Passed]


def passed(by_prompt: Sequence[Sequence[Answer]]) -> Passed:
    """Of the answers to each prompt of a source."""
    answers = [answer for own in by_prompt for answer in own]

    def mean_of_means(values: Sequence[Sequence[float | None]]) -> float | None:
        known = [[value for value in own if value is not None] for own in values]
        means = [sum(own) / len(own) for own in known if own]
        return sum(means) / len(means) if means else None

    return Passed(
        pass_rate=mean_of_means([[answer.judged.passed for answer in own] for own in by_prompt]),
        reward=mean_of_means([[answer.judged.reward for answer in own] for own in by_prompt]),
        prompts=len(by_prompt),
        answers=len(answers),
        failed=sum(answer.judged.reward is None for answer in answers),
        response_tokens=sum(len(answer.tokens) for answer in answers) / len(answers),
        truncated=sum(answer.truncated for answer in answers) / len(answers),
    )


class Evaluation:
    """Every method is called by all ranks together. Takes the place of a `Validation`."""

    def __init__(self, trainer: RlTrainer) -> None:
        """Raises StoreError."""
        job = trainer.job
        assert job.evaluation
        self._trainer, self._policy = trainer, job.evaluation
        self._sets: Mapping[str, PromptSource] = read_evaluation(job)
        path = trainer.context.run.metrics_dir / "evaluation.jsonl"
        self._file = RecordFile(path) if trainer.context.rank == 0 else None
        lines = from_rank_0(trainer, lambda: [json.loads(line) for line in path.read_text().splitlines()])
        self._known = {line["step"] for line in lines}
        self.ended = trainer.place.last_step in self._known
        self.rates: dict[str, float] = {}  # the last ones, by their names in `xgen.metrics.extra`
        if lines:
            self._tell(lines[-1]["sources"])

    def due(self, step: int) -> bool:
        if step == 0 and 0 in self._known:
            return False  # an attempt before has
        return step % self._policy.every == 0 or step == self._trainer.place.last_step

    def run(self, agreement: Agreement) -> None:
        """Compute and record the pass rates, unless the ranks agree to stop. The state of the training is as before."""
        del agreement  # the same that all waiting for answers asks
        trainer, began, step = self._trainer, time.perf_counter(), int(self._trainer.step)
        at_end = step == trainer.place.last_step
        self.ended = self.ended and not at_end
        trainer.tell("validation_begin", step=step)
        try:
            found = self._passed()
        except StoppedWaitingError:
            found = None
        seconds = round(time.perf_counter() - began, 3)
        trainer.tell("validation_end", step=step, seconds=seconds, reason=None if found else "told to stop")
        if found is None:
            return
        self.ended = self.ended or at_end
        self._record(EvaluationRecord(step, trainer.tokens_trained, seconds, found))

    def _passed(self) -> dict[str, Passed]:
        """By source. Raises StoppedWaitingError."""
        trainer, policy = self._trainer, self._policy
        trainer.hand_over()
        rollouts, ranks = trainer.rollouts, trainer.rollouts.ranks
        own = [(source, number) for source, prompts in self._sets.items() for number in range(len(prompts.prompts))][
            ranks.rank :: ranks.num
        ]
        for source, number in own:
            self._ask(source, number)
        names = [_name(source, number, sample) for source, number in own for sample in range(policy.samples)]
        while not ranks.all_done(rollouts.desk.wait(names, _SLICE)):
            pass
        answers = rollouts.desk.take(names)
        mine = [
            (source, [answers[_name(source, number, sample)] for sample in range(policy.samples)])
            for source, number in own
        ]
        every = [one for some in ranks.share(mine) for one in some]
        return {source: passed([own for name, own in every if name == source]) for source in self._sets}

    def _ask(self, source: str, number: int) -> None:
        policy, rollout = self._policy, self._trainer.job.rollout
        prompt = self._sets[source].prompts[number]
        for sample in range(policy.samples):
            seed = int(shuffle_keys(1, self._trainer.job.seed, "evaluation", source, number, sample)[0]) >> 1
            sampling = Sampling(
                rollout.max_tokens, policy.temperature, rollout.top_p, self._trainer.rollouts.stop_tokens
            )
            request = Request(_name(source, number, sample), prompt.tokens, seed, sampling)
            self._trainer.rollouts.desk.ask(Ticket(request, prompt, lambda _: self._trainer.context.progress.touch()))

    def _record(self, record: EvaluationRecord) -> None:
        rates = self._tell({name: vars(found) for name, found in record.sources.items()})
        if not self._file:
            return
        self._file.append(record)
        said = ", ".join(f"{name} {rate:.1%}" for name, rate in rates.items())
        print(f"step {record.step} held-out pass rate: {said} ({record.seconds:.1f} s)", flush=True)

    def _tell(self, sources: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
        """The pass rates, to the exporter too."""
        rates = {name: own["pass_rate"] for name, own in sources.items() if own["pass_rate"] is not None}
        self.rates = {f"rl_evaluation_pass_rate/{name}": rate for name, rate in rates.items()}
        if self._trainer.exporter:
            self._trainer.exporter.on_extra(self.rates)
        return rates


def _name(source: str, number: int, sample: int) -> str:
    return f"evaluation-{source}.{number}.{sample}"
