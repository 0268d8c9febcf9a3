"""What every post-training has: where its weights come from, how it is laid out, chat data, LoRA."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from xgen.spec.base import Count, Number, Strict
from xgen.spec.job import Resources
from xgen.spec.stage import LearningRate, Parallelism, Place, RopeScaling, Stage
from xgen.spec.trained import Trained
from xgen.spec.units import Length, Steps

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Init(Strict):
    """The weights to begin with. A run's name or folder alone is its newest checkpoint."""

    run: str | None = Field(
        default=None, description="a run of any training: its directory, or its name below the cluster's run_root"
    )
    step: Count | None = Field(default=None, ge=0, description="of that run; default: its newest complete checkpoint")
    hf: str | None = Field(default=None, description="folder of a Hugging Face model, in place of `run`")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if not isinstance(value, str | dict | cls):
            raise ValueError(f"{value!r} names no weights; write the name of a run, {{run, step}}, or {{hf: FOLDER}}")
        return {"run": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.run is None) == (self.hf is None):
            said = "both `run` and `hf` given" if self.run else "nothing given"
            raise ValueError(f"{said}; write init: {{run: NAME}}, or init: {{hf: FOLDER}}")
        if self.hf and self.step is not None:
            raise ValueError("step: a Hugging Face folder has one state; leave it out")
        return self


class Layout(Strict):
    """How long, in which batches, at which rate, split over the GPUs how. Words as in a stage of a pretrain."""

    steps: Steps = Field(description="optimizer steps")
    sequences: Count = Field(ge=1, description="packed sequences of `seq_len` per optimizer step, over all ranks")
    seq_len: Length
    micro_batch: Count = Field(default=1, ge=1, description="sequences per rank in one forward pass")
    rope_theta: Number = Field(default=1e4, gt=0, description="as in the stage that the weights come from")
    rope_scaling: RopeScaling | None = Field(default=None, description="default: none")
    lr: LearningRate
    parallelism: Parallelism = Field(default_factory=Parallelism)
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    attention: Literal["flex", "varlen", "flash"] = "flex"
    precision: Literal["bf16", "float8"] = "bf16"
    compile: bool = False

    @field_validator("steps")
    @classmethod
    def _steps(cls, value: int) -> int:
        if value < 1:
            raise ValueError(f"{value} would train nothing; write 1 or more")
        return value

    @model_validator(mode="after")
    def _makes_a_stage(self) -> Self:
        self.stage  # noqa: B018 - what a stage refuses is refused here
        if self.parallelism.pp > 1:
            raise ValueError("parallelism.pp: the losses of post-training need all ranks of a sequence; write pp: 1")
        if self.lr.peak is None:
            raise ValueError("lr.peak is missing; write e.g. lr: {peak: 1e-5}")
        return self

    @property
    def stage(self) -> Stage:
        """The same as a stage of a pretrain."""
        batch = self.sequences * self.seq_len
        own = {key: getattr(self, key) for key in Layout.model_fields if key not in ("steps", "sequences")}
        return Stage(name="train", tokens=self.steps * batch, global_batch=batch, **own)


class ChatSource(Strict):
    """Records of one kind: conversations, preference pairs or prompts (docs/posttraining.md says how a line looks)."""

    path: str = Field(description="file, folder, URL or hf:NAME[:SPLIT], as `xgen data build --input` takes them")
    weight: Number = Field(default=1.0, gt=0, description="relative to the other sources, in trained tokens")
    max_epochs: Number | None = Field(default=None, gt=0, description="its records are never seen more often than this")

    @model_validator(mode="before")
    @classmethod
    def _by_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


def check_names(value: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError for what is no name of a source."""
    if not value:
        raise ValueError("is empty; write {NAME: PATH}")
    if bad := next((name for name in value if not _NAME.fullmatch(name)), None):
        raise ValueError(f"{bad!r} is no name; write letters, digits, '_', '.' and '-'")
    return value


class ChatData(Strict):
    """Conversations as tokens, with a mask that says what is learnt, packed into sequences with document masks."""

    tokenizer: str = Field(description="tokenizer.json, or a folder with one and, as a rule, its chat template")
    template: str | None = Field(
        default=None, description="a Jinja file; default: chat_template of the tokenizer's folder, else ChatML"
    )
    sources: dict[str, ChatSource] = Field(description="{NAME: PATH or {path, weight, max_epochs}}")
    learn: Literal["assistant", "last", "all"] = Field(
        default="assistant",
        description="assistant: every message of the assistant; last: its last one; all: every token",
    )
    too_long: Literal["drop", "truncate"] = Field(
        default="drop", description="what is longer than seq_len is dropped, or cut at its end; counted either way"
    )
    out: str | None = Field(default=None, description="folder of the prepared tokens; default: in the run directory")
    workers: Count = Field(default=1, ge=0, description="threads that prepare batches; 0: none, for debugging")
    prefetch: Count = Field(default=4, ge=1, description="micro-batches that are prepared ahead")

    _names = field_validator("sources")(check_names)

    @property
    def reads(self) -> dict[str, str]:
        """Files and folders by key, below that of this."""
        sources = {f"sources.{name}": source.path for name, source in self.sources.items()}
        return on_disk({"tokenizer": self.tokenizer, "template": self.template, **sources})


def on_disk(paths: Mapping[str, str | None]) -> dict[str, str]:
    """Those that are paths, not what is fetched (a URL, hf:NAME)."""
    return {key: path for key, path in paths.items() if path and "://" not in path and not path.startswith("hf:")}


class ChatValidation(Strict):
    """Loss, and of pairs the accuracy, on records that the training never sees."""

    sources: dict[str, str] = Field(description="{NAME: PATH} of held-out records")
    every: Steps = Field(default=100, description="optimizer steps; also before the first and after the last")
    sequences: Count = Field(default=64, ge=1, description="packed sequences of each source, or all that it has")

    _names = field_validator("sources")(check_names)

    @field_validator("every")
    @classmethod
    def _every(cls, value: int) -> int:
        if value < 1:
            raise ValueError(f"{value} would never validate; write 1 or more, or leave `validation` out")
        return value


def reads_of(data: ChatData, validation: ChatValidation | None) -> dict[str, str]:
    """Files and folders by key."""
    held_out = validation.sources if validation else {}
    return {f"data.{key}": path for key, path in data.reads.items()} | on_disk(
        {f"validation.sources.{name}": path for name, path in held_out.items()}
    )


class Tuned(Trained):
    """A job that trains the weights of another run further."""

    init: Init = Field(description="a run's name, or {run, step}, or {hf: FOLDER}")
    train: Layout

    @property
    def places(self) -> tuple[Place, ...]:
        peak = self.train.lr.peak
        assert peak is not None
        return (Place(0, self.train.stage, self.train_resources, 0, 0, 0.0, peak),)

    def trains(self, stage: int) -> bool:
        return stage == len(self.jobs) - 1

    def place_of(self, stage: int) -> Place:
        del stage  # of the jobs of a run, one trains
        return self.places[0]

    @property
    def reads(self) -> dict[str, str]:
        """Files and folders that its jobs read, by key; what is fetched from elsewhere is not among them. The run that
        the weights come from is `init.run`."""
        return {"init.hf": self.init.hf} if self.init.hf else {}

    @property
    def train_resources(self) -> Resources:
        """Of the job that trains."""
        return self.resources


def one_task(resources: Resources, own: Resources | None) -> Resources:
    """Of a job that prepares: its own, else one task without a GPU."""
    return own or resources.model_copy(update={"nodes": 1, "gpus_per_node": 0})
