"""The verifiers as the desk asks them: of answers that are tokens, from several threads."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from xgen.data.chat.tokenizer import ChatTokenizer
from xgen.engine import Completion
from xgen.posttrain.rewards import Task, Verdict, Verifiers
from xgen.posttrain.rl.answers import Judged
from xgen.posttrain.rl.desk import Spent
from xgen.spec import Rl

if TYPE_CHECKING:
    from xgen.data.chat.prompts import TokenPrompt


class RewardJudge:
    """Of one rank. `Verifiers` is not for several threads: one lock."""

    def __init__(self, job: Rl, tokenizer: ChatTokenizer, workers: int) -> None:
        """`workers`: processes. Raises StartError."""
        self._job, self._tokenizer = job, tokenizer
        self._verifiers = Verifiers(job.verification.model_copy(update={"workers": workers}))
        self.isolation = self._verifiers.isolation
        self._keys: dict[int, str] = {}  # by the number of the task
        self._told: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def submit(self, key: str, prompt: TokenPrompt, completion: Completion) -> None:
        task = Task(
            source=prompt.source,
            rewards=tuple(self._job.rewards_of(prompt.source)),
            prompt=prompt.text,
            answer=text_of(self._tokenizer, completion.tokens),
            num_tokens=len(completion.tokens),
            record=prompt.record,
        )
        with self._lock:
            self._keys[self._verifiers.submit(task)] = key

    def ready(self, timeout: float) -> list[tuple[str, Judged]]:
        with self._lock:
            done = [(self._keys.pop(number), _judged(verdict)) for number, verdict in self._verifiers.ready(timeout)]
        for _, judged in done:
            self._tell(judged)
        return done

    def _tell(self, judged: Judged) -> None:
        """The first failure of each kind and reason; the metrics count them."""
        for name, reason in judged.failures.items():
            if (name, reason) not in self._told:
                self._told.add((name, reason))
                why = f": {judged.details[name]}" if name in judged.details else ""
                print(f"no verdict of {name}, {reason}{why}; such answers do not train", flush=True)

    def spent(self) -> Mapping[str, Spent]:
        """By kind: on verdicts that were worked on, and on those that failed."""
        with self._lock:
            kinds = self._verifiers.stats().kinds
        return {
            kind: Spent(own.verdicts - own.cached + sum(own.failures.values()), own.seconds)
            for kind, own in kinds.items()
        }

    def close(self) -> None:
        with self._lock:
            self._verifiers.close()


def text_of(tokenizer: ChatTokenizer, tokens: Sequence[int]) -> str:
    """An answer without the token that ends it."""
    whole = list(tokens[:-1] if tokens and tokens[-1] in tokenizer.stop else tokens)
    text: str = tokenizer.backend.decode(whole, skip_special_tokens=True)
    return text


def _judged(verdict: Verdict) -> Judged:
    why = {name: verdict.details[name] for name in verdict.failures if name in verdict.details}
    return Judged(verdict.score, verdict.parts, verdict.failures, verdict.seconds, why)
