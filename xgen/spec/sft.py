"""The kinds `sft` and `preference`: learning from conversations, and from pairs of which one answer is better."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from xgen.spec.base import Number, Strict
from xgen.spec.job import Array, Resources
from xgen.spec.posttrain import ChatData, ChatValidation, Tuned, one_task, reads_of
from xgen.spec.trained import Lora


class Sft(Tuned):
    """Supervised fine-tuning on conversations. Step `prepare` makes tokens of them once, `train` trains."""

    kind: Literal["sft"]
    data: ChatData
    lora: Lora | None = Field(default=None, description="default: all weights are trained")
    validation: ChatValidation | None = None
    single: Resources | None = Field(default=None, description="of `prepare`; default: one task of `resources`, no GPU")

    @property
    def reads(self) -> dict[str, str]:
        return super().reads | reads_of(self.data, self.validation)

    @property
    def adapters(self) -> Lora | None:
        return self.lora

    @property
    def jobs(self) -> tuple[tuple[str, Resources], ...]:
        return ("prepare", one_task(self.resources, self.single)), ("train", self.resources)


class PreferenceLoss(Strict):
    """What pulls the better answer above the worse one.

    dpo: arXiv 2305.18290; ipo: arXiv 2310.12036; simpo: arXiv 2405.14734; dpo_norm: DPO on log-probabilities per token,
    that is divided by the answer's length (Tulu 3, arXiv 2411.15124).
    """

    kind: Literal["dpo", "ipo", "simpo", "dpo_norm"] = "dpo"
    beta: Number = Field(default=0.1, gt=0)
    margin: Number = Field(default=0.5, ge=0, description="of simpo: gamma, in units of its reward")
    label_smoothing: Number = Field(default=0.0, ge=0, lt=0.5, description="of dpo: the share of pairs that lie")
    nll: Number = Field(default=0.0, ge=0, description="weight of the better answer's own loss, added (RPO)")

    @property
    def needs_reference(self) -> bool:
        return self.kind != "simpo"


class Preference(Tuned):
    """Learning from preference pairs. Steps: `prepare`; `reference`, a job array that computes the log-probabilities of
    the initial weights once, unless the loss needs none; `train`."""

    kind: Literal["preference"]
    data: ChatData
    loss: PreferenceLoss = Field(default_factory=PreferenceLoss)
    lora: Lora | None = Field(default=None, description="default: all weights are trained")
    validation: ChatValidation | None = None
    reference: Literal["stored", "frozen"] = Field(
        default="stored",
        description="stored: computed once, by the array; frozen: a sharded copy of the initial weights on every GPU",
    )
    array: Array = Field(default_factory=lambda: Array(shards=1), description="of `reference`")
    single: Resources | None = Field(default=None, description="of `prepare`; default: one task of `resources`, no GPU")

    @model_validator(mode="after")
    def _keys_are_of_the_loss(self) -> Self:
        if self.loss.label_smoothing and self.loss.kind not in ("dpo", "dpo_norm"):
            raise ValueError(f"loss.label_smoothing: {self.loss.kind} has none; leave it out, or write kind: dpo")
        if self.loss.margin != PreferenceLoss().margin and self.loss.kind != "simpo":
            raise ValueError(f"loss.margin: {self.loss.kind} has none; leave it out, or write kind: simpo")
        return self

    @property
    def reads(self) -> dict[str, str]:
        return super().reads | reads_of(self.data, self.validation)

    @property
    def adapters(self) -> Lora | None:
        return self.lora

    @property
    def stores_reference(self) -> bool:
        return self.loss.needs_reference and self.reference == "stored"

    @property
    def jobs(self) -> tuple[tuple[str, Resources], ...]:
        prepare, train = ("prepare", one_task(self.resources, self.single)), ("train", self.resources)
        return (prepare, ("reference", self.resources), train) if self.stores_reference else (prepare, train)

    def array_of(self, stage: int) -> Array | None:
        return self.array if self.jobs[stage][0] == "reference" else None
