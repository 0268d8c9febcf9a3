"""One optimizer step: torchtitan's, but judged before it changes a weight, and with micro-batches and a loss that a
kind of training may have for its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torchtitan.distributed import utils as dist_utils
from torchtitan.trainer import Trainer

from xgen.data.samples import IGNORE
from xgen.train.agreement import Agreement
from xgen.train.checkpoint import VerifiedCheckpoints
from xgen.train.guard import StepGuard, Verdict
from xgen.train.loader import StepLoader
from xgen.train.microbatch import Given, MicroBatch, prepare


class UpdatingTrainer(Trainer):
    """What a trainer of jobs is for one step; it brings along whoever judges, and whom the ranks agree by."""

    checkpointer: VerifiedCheckpoints
    dataloader: StepLoader
    guard: StepGuard
    _agreement: Agreement
    _verdict: Verdict  # on the last step

    # ---- a kind's own

    def micro_batches(self, data: Iterator[Given]) -> list[list[Given]]:
        """Of a step: as many as there are, each in a list of its own; of a pipeline all that it takes at once."""
        return [
            [next(data) for _ in range(self.num_pipeline_parallel_microbatches)]
            for _ in range(self.gradient_accumulation_steps)
        ]

    def normaliser(self, groups: list[list[Given]]) -> torch.Tensor:
        """What the losses of a step's micro-batches are divided by, so that their sum over all ranks is the step's:
        tokens that are learnt."""
        valid = sum(((labels != IGNORE).sum() for group in groups for _, labels in group), torch.tensor(0))
        whole: torch.Tensor = dist_utils.dist_sum_tensor(
            valid.to(self.device), self.parallel_dims.get_optional_mesh("batch")
        )
        return whole

    def objective(self, hidden: torch.Tensor, batch: MicroBatch, whole: torch.Tensor) -> torch.Tensor:
        """This rank's part of the step's loss, to be differentiated; `hidden` is what the output layer gets."""
        loss: torch.Tensor = self.loss_fn(hidden, batch.labels, whole)[0]
        return loss

    # ---- the same for all

    def _update(self, data_iterator: Iterator[Any]) -> tuple[float, float]:
        """torchtitan's step, but that it is judged before it changes a weight; returns loss and norm of the gradient,
        over all ranks."""
        self.optimizers.zero_grad(set_to_none=self.config.training.disable_cuda_graphs)
        local_loss = self._forward_backward(data_iterator)
        norm = dist_utils.clip_grad_norm_(
            [p for part in self.model_parts for p in part.parameters()],
            self.config.training.max_norm,
            foreach=True,
            pp_mesh=self.parallel_dims.get_optional_mesh("pp"),
            ep_enabled=False,
        )
        numbers = torch.stack([self._over_ranks(local_loss), norm.float()])
        # Groups of ranks may have summed up in another order, and all must come to the same verdict.
        dist.broadcast(numbers, src=0)
        loss, grad_norm = numbers.tolist()  # the one moment at which the host waits for the device
        self._verdict = self.guard.judge(loss, grad_norm)
        if self._verdict.action == "rollback" and not self.checkpointer.newest():
            self._verdict = Verdict("skip", f"{self._verdict.reason}, and there is no checkpoint to go back to")
        if self._verdict.applies:
            self.optimizers.step()
        else:
            self.optimizers.zero_grad()  # torchtitan makes no state to be saved where there are gradients
        return loss, grad_norm

    def _forward_backward(self, data_iterator: Iterator[Any]) -> torch.Tensor:
        """Gradients of a step, and this rank's part of its loss."""
        groups = self.micro_batches(data_iterator)
        self._agreement.begin(self.dataloader.take_digest())  # the ranks agree while the step computes
        whole = self.normaliser(groups)
        total = torch.zeros((), device=self.device)
        for group in groups:
            pipelined = self.parallel_dims.pp_enabled
            loss = self._backward_pipelined(group, whole) if pipelined else self._backward(group[0], whole)
            loss = loss.detach()
            loss = loss.to_local() if isinstance(loss, DTensor) else loss  # as torchtitan sums it
            total += loss.reshape(())  # in a pipeline the first ranks have a list of one number
        return total

    def _backward(self, given: Given, whole: torch.Tensor) -> torch.Tensor:
        """torchtitan's, but for what the loss is."""
        batch = prepare(self, *given)
        with self.train_context():
            loss = self.objective(self.model_parts[0](batch.tokens, **batch.model_inputs), batch, whole)
            loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def _backward_pipelined(self, group: list[Given], whole: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.forward_backward_step(
            input_dict=[{key: value.to(self.device) for key, value in inputs.items()} for inputs, _ in group],
            labels=[labels.to(self.device) for _, labels in group],
            global_valid_tokens=whole,
        )
        return loss

    def _over_ranks(self, local_loss: torch.Tensor) -> torch.Tensor:
        """The loss of all ranks, on all of them: of a pipeline the last ones have it."""
        dims = self.parallel_dims
        if dims.pp_enabled and not self.pp_has_last_stage:
            local_loss = torch.zeros_like(local_loss)
        loss = dist_utils.dist_sum_tensor(local_loss, dims.get_optional_mesh("loss") if dims.dp_cp_enabled else None)
        summed: torch.Tensor = dist_utils.dist_sum_tensor(loss, dims.get_optional_mesh("pp"))
        return summed

    def over_context(self, sums: torch.Tensor) -> torch.Tensor:
        """Summed up over the ranks that have the other parts of the same sequences (context parallelism)."""
        if (mesh := self.parallel_dims.get_optional_mesh("cp")) is not None:
            dist.all_reduce(sums, group=mesh.get_group())
        return sums
