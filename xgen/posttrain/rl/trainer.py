"""The trainer of online RL: a step gets its answers first, and then is one optimizer step, or more, on them."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torchtitan.components.loss import ChunkedLossWrapper
from torchtitan.distributed import utils as dist_utils

from xgen.data import MODULUS
from xgen.data.chat.prompts import load_tokenizer
from xgen.engine import EngineError
from xgen.engine.weights import full_weights
from xgen.posttrain.losses import Normalizer, Sampled
from xgen.posttrain.preference.frozen import Frozen
from xgen.posttrain.rl import learning, stats
from xgen.posttrain.rl.desk import Desk
from xgen.posttrain.rl.evaluation import Evaluation
from xgen.posttrain.rl.journal import Journal
from xgen.posttrain.rl.judging import text_of
from xgen.posttrain.rl.loader import PromptLoader
from xgen.posttrain.rl.objective import MEASURED, weigh_answers
from xgen.posttrain.rl.rollouts import Collected, Ranks, Rollouts, StoppedWaitingError
from xgen.posttrain.rl.rows import Piece, in_updates, make_rows, micro_batches
from xgen.posttrain.rl.samples import write_samples
from xgen.posttrain.rl.setup import answers_follow_from, make_engine, make_judge
from xgen.posttrain.rl.usable import check_rewards
from xgen.posttrain.two_pass import TokenLogprobs, TwoPassLoss
from xgen.runs import Refused
from xgen.spec import Rl, Trained
from xgen.train.guard import StepGuard, Verdict
from xgen.train.init import load_initial
from xgen.train.loader import as_given
from xgen.train.microbatch import Given, MicroBatch, prepare
from xgen.train.trainer import JobTrainer, TrainResult


class RlGuard(StepGuard):
    """A policy's loss has no level to be held against, and a step in which nothing is to be learnt has no gradient:
    spikes are those of the norm of the other steps' gradients."""

    def judge(self, loss: float, grad_norm: float) -> Verdict:
        if not math.isfinite(loss):
            return super().judge(loss, grad_norm)
        return super().judge(0.0, grad_norm) if grad_norm else Verdict("")


@dataclass
class _Update:
    """One optimizer step on a part of the answers: this rank's micro-batches, and what the losses are divided by."""

    micro_batches: list[Given]
    total: Normalizer
    computed: float  # share of the tokens


class RlTrainer(JobTrainer):
    loss_fn: TwoPassLoss
    dataloader: PromptLoader
    job: Rl

    @classmethod
    def adapt(cls, config: JobTrainer.Config, job: Trained) -> JobTrainer.Config:
        config = super().adapt(config, job)
        assert isinstance(job, Rl)
        config.dataloader = PromptLoader.Config(job=job)
        config.loss = TwoPassLoss.Config(
            num_chunks=cast(ChunkedLossWrapper.Config, config.loss).num_chunks,
            loss_fn=TokenLogprobs.Config(temperature=job.rollout.temperature),
        )
        return config

    def make_validation(self) -> Evaluation | None:
        """All else that this trainer has beside the others; the last thing that is made of it."""
        job, loader, context = self.job, self.dataloader, self.context
        self.guard = RlGuard(job.guard)
        self._measured = torch.zeros(len(MEASURED), device=self.device)
        self._importance_max = torch.zeros((), device=self.device)
        self._frozen: Frozen | None = None
        self._extra: dict[str, float] = {}
        self._tokenizer = tokenizer = load_tokenizer(job)
        if context.rank == 0:
            check_rewards(job, loader.prompts.sources)
        desk = Desk(
            make_engine(job, context, self.device), make_judge(job, tokenizer), background=job.rollout.staleness > 0
        )
        self.rollouts = Rollouts(
            job=job,
            prompts=loader.prompts,
            desk=desk,
            journal=Journal(context.run.path / "rollouts", context.rank, answers_follow_from(job, loader.fingerprint)),
            ranks=Ranks(context.rank, context.world_size, self.cpu_group, self._told_to_stop),
            stop_tokens=tokenizer.stop,
            on_progress=context.progress.touch,
        )
        self._efforts = (desk.effort,) * context.world_size
        return Evaluation(self) if job.evaluation else None

    def hand_over(self) -> None:
        """The engine gets the weights of this step, unless it has them."""
        if self.rollouts.desk.engine.version != self.step:
            with self.context.progress.during("generate"):  # servers take as long as a checkpoint
                self.rollouts.desk.engine.load(int(self.step), full_weights(self.model_parts[0]))

    def _told_to_stop(self) -> bool:
        self._agreement.begin()
        self._agreement.end()
        return bool(self._agreement.signal)

    def _restore(self) -> None:
        if self.job.loss.kl:
            load_initial(self, self.model_parts)
            self._frozen = Frozen(self.model_parts[0])
        super()._restore()

    def _batches(self) -> Generator[Any, None, None]:
        """The training begins, or begins again from a checkpoint: so do the answers that it had asked for."""
        self.rollouts.drop()
        self.hand_over()
        self.rollouts.ask_again(self.dataloader.allotment)
        return super()._batches()

    def _train(self) -> TrainResult:
        try:
            return super()._train()
        except StoppedWaitingError:
            self.step -= 1  # it had not begun to train
            return self._stop(self._agreement.signal)
        except EngineError as error:
            if error.retryable:
                raise
            raise Refused(f"rollout: {error}") from None

    def _stop(self, signal: str) -> TrainResult:
        self.rollouts.keep_partial()
        return super()._stop(signal)

    def close(self) -> None:
        self.rollouts.desk.close()
        self.rollouts.journal.prune(self.checkpointer.durable_step)
        self.rollouts.journal.close()
        super().close()

    def train_step(self, data_iterator: Iterator[Any]) -> None:
        rate = next(iter(self.lr_schedulers.get_metrics().values()))
        self.rollouts.journal.prune(self.checkpointer.durable_step)
        with self.context.progress.during("generate"):
            collected = self.rollouts.collect(int(self.step), self.dataloader.allotment)
        began = time.perf_counter()
        pieces = self._learn_from(collected)
        updates = self._updates(pieces)
        self._measured.zero_()
        self._importance_max.zero_()
        losses, norms, digest = [], [], 0
        for self._present in updates:
            loss, norm = self._update(data_iterator)
            digest += self._end_agreement()
            losses.append(loss)
            norms.append(norm)
            if not self._verdict.applies:
                break
        self.lr_schedulers.step()
        self.hand_over()
        self._extra |= self._of_updates(len(losses), sum(map(len, pieces)) / (time.perf_counter() - began))
        self.metrics_processor.record(
            sum(losses) / len(losses), max(norms), rate, digest % MODULUS, self._verdict, self.extra_metrics()
        )
        if self._verdict.action:
            self._act_on(self._verdict)

    def _learn_from(self, collected: Collected) -> list[Piece]:
        """What of the answers trains; they are counted, and some of them kept to be read."""
        step, job, loader = int(self.step), self.job, self.dataloader
        groups = learning.learnt(job, collected.groups)
        advantages = learning.advantages(job, groups)
        pieces = learning.pieces(
            groups, advantages, lambda number: np.array(loader.prompts.at(number).tokens, dtype=np.int32)
        )
        loader.take(step, collected.groups, sum(map(len, pieces)))
        self._extra = stats.of_answers(collected.groups, step) | stats.of_failures(loader.failures)
        self._extra |= stats.of_efforts(self._efforts, collected.efforts)
        self._extra["rl_trained_tokens"] = loader.num_tokens
        self._extra["rl_resampled_batches"] = len(collected.rounds) - 1
        self._extra["rl_excluded_answers"] = sum(len(group.answers) for group in groups) - len(pieces)
        self._efforts = collected.efforts
        if job.samples_every and step % job.samples_every == 0 and self.context.rank == 0:
            write_samples(
                self.context.run,
                step,
                groups,
                advantages,
                lambda number: loader.prompts.at(number).text,
                lambda tokens: text_of(self._tokenizer, tokens.tolist()),
            )
        return pieces

    def _updates(self, pieces: list[Piece]) -> list[_Update]:
        """Of the ranks that have rows of their own this one's."""
        layout = self.job.train
        mesh = self.parallel_dims.get_optional_mesh("batch")
        ranks, rank = (mesh.size(), mesh.get_local_rank()) if mesh is not None else (1, 0)
        updates = []
        every = self.job.loss.kl > 0  # else an advantage of 0 is a gradient of 0
        for part in in_updates(pieces, layout.seq_len, self.job.loss.updates, layout.sequences, every):
            own = micro_batches(part.rows, ranks, rank, layout.micro_batch)
            given = [as_given(make_rows(rows, layout.seq_len)) for rows in own]
            total = Normalizer(max(1, part.num_tokens), max(1, part.num_answers), self.job.rollout.max_tokens)
            updates.append(_Update(given, total, computed=part.num_computed / total.tokens or 1.0))
        all_given = [one for update in updates for one in update.micro_batches]
        if len(updates) > 1:  # all are held against the policy before the first
            self._add_logprobs("old", all_given)
        if self._frozen:
            with self._frozen.instead():
                self._add_logprobs("reference", all_given)
        return updates

    @torch.no_grad()
    def _add_logprobs(self, name: str, given: list[Given]) -> None:
        """Those of the labels, by the weights that the model has: of each sequence this rank's part."""
        for inputs, labels in given:
            batch = prepare(self, inputs, labels)
            with self.train_context():
                hidden = self.model_parts[0](batch.tokens, **batch.model_inputs)
                found = self.loss_fn.logprobs(hidden, batch.labels)
            inputs[name] = found

    def micro_batches(self, data: Iterator[Given]) -> list[list[Given]]:
        del data
        return [[given] for given in self._present.micro_batches]

    def normaliser(self, groups: list[list[Given]]) -> torch.Tensor:
        del groups  # each rank knows all rows
        return torch.tensor(self._present.total.tokens)

    def objective(self, hidden: torch.Tensor, batch: MicroBatch, whole: torch.Tensor) -> torch.Tensor:
        del whole  # in `total`, beside the others
        extras = batch.extras
        sampled = Sampled(
            answers=extras["answers"],
            lengths=extras["lengths"],
            advantages=extras["advantages"],
            old=extras.get("old"),
            sampler=extras["sampler"],
            reference=extras.get("reference"),
        )
        logprobs, entropies = self.loss_fn.logprobs_and_entropies(hidden, batch.labels)
        weighed = weigh_answers(self.job.loss, logprobs, entropies, sampled, self._present.total, self.over_context)
        self._measured += weighed.measured / self._present.computed
        self._importance_max = torch.maximum(self._importance_max, weighed.importance_max)
        return self.loss_fn.with_gradient(weighed.loss, hidden, batch.labels, weighed.weights)

    def _of_updates(self, num: int, tokens_per_second: float) -> dict[str, float]:
        """Means over the updates of a step."""
        mesh = self.parallel_dims.get_optional_mesh("loss")
        means = dist_utils.dist_sum_tensor(self._measured, mesh) / num
        found = dict(zip(MEASURED, means.tolist(), strict=True))
        found["rl_importance_max"] = dist_utils.dist_max(self._importance_max, mesh)
        return found | {"rl_updates": num, "rl_trained_tokens_per_second": tokens_per_second}

    def extra_metrics(self) -> dict[str, float]:
        held_out = self._validation.rates if isinstance(self._validation, Evaluation) else {}
        return self._extra | held_out

    def waits(self) -> dict[str, float]:
        waits = self.rollouts.waits
        return {**super().waits(), "generate": waits.generate, "verify": waits.verify}

    def _event_after_first_step(self) -> None:
        if not self._started:
            self.rollouts.waits.generate = self.rollouts.waits.verify = 0.0  # they were a part of the start
        super()._event_after_first_step()
