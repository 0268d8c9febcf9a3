"""The kind `rl`: online reinforcement learning with verifiable rewards, the GRPO family."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from xgen.spec.base import Count, Number, Strict, nearest
from xgen.spec.job import Array, Resources
from xgen.spec.posttrain import ChatSource, Tuned, check_names, on_disk
from xgen.spec.rewards import Reward, Verification, as_list
from xgen.spec.units import Duration, Length, Steps


class Prompts(Strict):
    """Prompts with what their answers are verified by (docs/posttraining.md says how a line looks)."""

    tokenizer: str = Field(description="tokenizer.json, or a folder with one and, as a rule, its chat template")
    template: str | None = Field(
        default=None, description="a Jinja file; default: chat_template of the tokenizer's folder, else ChatML"
    )
    sources: dict[str, ChatSource] = Field(description="{NAME: PATH or {path, weight, max_epochs}}")
    max_tokens: Length = Field(default=2048, description="a longer prompt is left out, and counted")

    _names = field_validator("sources")(check_names)


class OneTask(Resources):
    """One task a node, which has all of its GPUs."""

    @property
    def tasks_per_node(self) -> int:
        return 1


class Servers(Strict):
    """OpenAI-compatible servers that generate, one to each shard of a job array beside the trainer."""

    kind: Literal["vllm", "transformers"] = Field(
        default="vllm", description="transformers: its `serve`, one answer after the other and without probabilities"
    )
    command: list[str] | None = Field(
        default=None,
        min_length=1,
        description="starts a server at {host}:{port} with the weights in {model}; default: that of the kind",
    )
    arguments: list[str] = Field(
        default_factory=list, description="more for the command, e.g. [--tensor-parallel-size, '4']"
    )
    array: Array = Field(default_factory=lambda: Array(shards=1))
    resources: Resources | None = Field(
        default=None,
        description="of one server, which has all GPUs of its node; default: one node of `resources`",
    )
    image: str | None = Field(default=None, description="as container.image; default: that of the trainer")
    timeout: Duration = Field(default=600, description="of one answer; then it goes on elsewhere")
    at_once: Count = Field(default=256, ge=1, description="answers that one server works on")

    @model_validator(mode="after")
    def _one_node(self) -> Self:
        if self.resources and self.resources.nodes > 1:
            raise ValueError(f"resources.nodes: a server is on one node; write nodes: 1, not {self.resources.nodes}")
        if self.command and (lost := next((w for w in ("{port}", "{model}") if w not in " ".join(self.command)), None)):
            raise ValueError(f"command: nothing in it is {lost}; write {lost} where the server takes it")
        return self


class Rollout(Strict):
    """How answers are sampled, and by whom."""

    prompts: Count = Field(ge=1, description="prompts per optimizer step, over all ranks")
    group: Count = Field(default=16, ge=2, description="answers to each prompt: the baseline is their mean")
    max_tokens: Length = Field(description="of an answer; a longer one is cut, and counted")
    temperature: Number = Field(default=1.0, gt=0)
    top_p: Number = Field(default=1.0, gt=0, le=1)
    staleness: Count = Field(
        default=0,
        ge=0,
        description="0: synchronous; N: answers may be of weights up to N steps old, and training and "
        "generation go on side by side",
    )
    servers: Servers | None = Field(default=None, description="default: the trainer's own processes generate")
    at_once: Count = Field(
        default=64, ge=1, description="answers that a rank generates at the same time, without servers"
    )


class RlLoss(Strict):
    """grpo: mean over the tokens of an answer, then over answers (arXiv 2402.03300); dr_grpo: sum over tokens by a
    constant, no division by the spread (arXiv 2503.20783); dapo: mean over all tokens of the step (arXiv 2503.14476).
    """

    kind: Literal["grpo", "dr_grpo", "dapo"] = "dapo"
    clip_low: Number = Field(default=0.2, gt=0, lt=1)
    clip_high: Number = Field(default=0.28, gt=0)
    kl: Number = Field(default=0.0, ge=0, description="weight of the divergence from the initial weights (k3 estimate)")
    scale: bool | None = Field(
        default=None, description="divide advantages by the group's spread; default: yes, but for dr_grpo"
    )
    importance: Literal["none", "token", "sequence"] = Field(
        default="token",
        description="correct for the sampler's own probabilities, which differ from the trainer's: per token or answer",
    )
    importance_cap: Number = Field(default=2.0, gt=1, description="the correction is truncated to this")
    updates: Count = Field(default=1, ge=1, description="optimizer steps on the answers of one batch")

    @property
    def scales(self) -> bool:
        return self.kind != "dr_grpo" if self.scale is None else self.scale


class Overlong(Strict):
    """Answers that were cut at max_tokens. filter: they do not train; a `length` reward shapes them softly instead."""

    filter: bool = False


class RlEvaluation(Strict):
    """Pass rate on prompts that the training never sees."""

    sources: dict[str, str] = Field(description="{NAME: PATH} of held-out prompts")
    every: Steps = Field(default=20, description="optimizer steps; also before the first and after the last")
    prompts: Count = Field(default=128, ge=1, description="of each source, or all that it has")
    samples: Count = Field(default=1, ge=1, description="answers to each; their mean counts")
    temperature: Number = Field(default=0.0, ge=0, description="0: the likeliest token")

    _names = field_validator("sources")(check_names)

    @field_validator("every")
    @classmethod
    def _every(cls, value: int) -> int:
        if value < 1:
            raise ValueError(f"{value} would never evaluate; write 1 or more, or leave `evaluation` out")
        return value


class Rl(Tuned):
    """Online RL. `train.sequences` times `train.seq_len` tokens are the room that the answers of a step, with their
    prompts, are packed into."""

    kind: Literal["rl"]
    prompts: Prompts
    rollout: Rollout
    rewards: dict[str, list[Reward]] = Field(
        description="{SOURCE: reward or [rewards]}; '*' stands for the sources that are not named"
    )
    verification: Verification = Field(default_factory=Verification)
    loss: RlLoss = Field(default_factory=RlLoss)
    dynamic_sampling: bool = Field(
        default=False,
        description="prompts whose answers are all right or all wrong teach nothing; others are taken in their place",
    )
    max_resampled: Count = Field(default=4, ge=1, description="of dynamic sampling: batches that are tried for a step")
    overlong: Overlong = Field(default_factory=Overlong)
    evaluation: RlEvaluation | None = None
    samples_every: Steps = Field(default=10, description="steps between answers that are kept whole to read; 0: none")

    @field_validator("rewards", mode="before", json_schema_input_type=dict[str, Reward | list[Reward]])
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return as_list(value)

    @model_validator(mode="after")
    def _every_source_is_judged(self) -> Self:
        for name in {**self.prompts.sources, **(self.evaluation.sources if self.evaluation else {})}:
            if not (self.rewards.get(name) or self.rewards.get("*")):
                raise ValueError(f"rewards.{name} is missing: nothing would judge its answers; write [{{kind: math}}]")
        if unknown := next((name for name in self.rewards if name != "*" and name not in self._judged()), None):
            raise ValueError(f"rewards.{unknown} belongs to no source; {nearest(unknown, self._judged())}")
        return self

    @model_validator(mode="after")
    def _answers_fit(self) -> Self:
        longest, room = self.prompts.max_tokens + self.rollout.max_tokens, self.train.seq_len
        if longest > room:
            raise ValueError(
                f"train.seq_len: {room} is less than prompts.max_tokens + rollout.max_tokens = {longest}; "
                f"write seq_len: {longest}, or less of the others"
            )
        if self.rollout.staleness and self.loss.updates > self.rollout.staleness + 1:
            bound = self.rollout.staleness + 1
            raise ValueError(
                f"loss.updates: {self.loss.updates} updates of a batch make it older than rollout.staleness allows; "
                f"write at most {bound}, or staleness: {self.loss.updates - 1}"
            )
        return self

    def _judged(self) -> set[str]:
        return {*self.prompts.sources, *(self.evaluation.sources if self.evaluation else ())}

    @property
    def reads(self) -> dict[str, str]:
        prompts, held_out = self.prompts, self.evaluation.sources if self.evaluation else {}
        sources = {f"prompts.sources.{name}": source.path for name, source in prompts.sources.items()}
        words = {"prompts.tokenizer": prompts.tokenizer, "prompts.template": prompts.template}
        tried = {f"evaluation.sources.{name}": path for name, path in held_out.items()}
        return super().reads | on_disk(words | sources | tried)

    def rewards_of(self, source: str) -> list[Reward]:
        return self.rewards.get(source) or self.rewards["*"]

    @property
    def server_resources(self) -> Resources:
        """Of one rollout server."""
        assert self.rollout.servers
        one = self.rollout.servers.resources or self.resources.model_copy(update={"nodes": 1})
        cpus = one.cpus_per_task * one.tasks_per_node
        return OneTask.model_construct(**dict(one) | {"cpus_per_task": cpus})

    @property
    def jobs(self) -> tuple[tuple[str, Resources], ...]:
        train = ("train", self.resources)
        return (("rollout", self.server_resources), train) if self.rollout.servers else (train,)

    def array_of(self, stage: int) -> Array | None:
        return self.rollout.servers.array if self.serves(stage) and self.rollout.servers else None

    def serves(self, stage: int) -> bool:
        return self.jobs[stage][0] == "rollout"

    def image_of(self, stage: int) -> str | None:
        own = self.rollout.servers.image if self.serves(stage) and self.rollout.servers else None
        return own or self.container.image
