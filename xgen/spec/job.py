"""The job spec: one envelope around one kind of work. What a field means stands in its description,
which `xgen schema` prints."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from xgen.spec.base import Count, Number, Strict, nearest
from xgen.spec.container import Container
from xgen.spec.models import ModelSpec
from xgen.spec.units import Bytes, Duration, Length, Steps, Tokens

PROTECTED_ENV = re.compile(
    r"^(SLURM_.*|SBATCH_.*|SRUN_.*|XGEN_.*|MASTER_ADDR|MASTER_PORT|RANK|LOCAL_RANK|WORLD_SIZE"
    r"|PATH|PYTHONPATH|LD_PRELOAD|BASH_ENV|ENV|IFS)$"
)
SECRET_ENV = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL|PRIVATE_KEY", re.IGNORECASE)
_ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


class Resources(Strict):
    """What the job asks SLURM for. One task runs per GPU."""

    partition: str | None = Field(default=None, description="default: the profile's default partition")
    nodes: Count = Field(default=1, ge=1)
    gpus_per_node: Count = Field(default=1, ge=1, description="also the tasks per node")
    cpus_per_task: Count = Field(default=1, ge=1)
    memory: Bytes | None = Field(default=None, description="per node; default: the partition's own")
    time: Duration = Field(description="time limit of one attempt, not of the run")

    @field_validator("time")
    @classmethod
    def _some_time(cls, value: int) -> int:
        if value < 1:
            raise ValueError("0s is no time at all; write e.g. 10m")
        return value

    @property
    def world_size(self) -> int:
        return self.nodes * self.gpus_per_node


class Restart(Strict):
    """When a run is tried again after a failure. Preemption and time limits are no failures."""

    max_failures: Count = Field(
        default=3, ge=1, description="stop after this many failures in a row without a new durable checkpoint"
    )


class Secret(Strict):
    """Where the value of a secret comes from, at submission. It is never in the script, nor in the spec."""

    env: str | None = Field(default=None, description="name of a variable in the environment of `xgen submit`")
    file: str | None = Field(default=None, description="a file that only its owner can read; a last newline is cut")
    command: list[str] | None = Field(
        default=None, min_length=1, description="a program that prints it, e.g. [pass, show, hf-token]"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("env", "file", "command") if getattr(self, name) is not None]
        if len(given) != 1:
            said = " and ".join(given) or "no source"
            raise ValueError(f"{said} given; write one of {{env: NAME}}, {{file: PATH}}, {{command: [PROGRAM]}}")
        return self


EnvT = TypeVar("EnvT", bound=Mapping[str, object])


def check_env_names(value: EnvT) -> EnvT:
    """Raises ValueError for what is no variable's name, and for one that SLURM or xgen sets."""
    for name in value:
        if not _ENV_NAME.match(name):
            raise ValueError(f"{name!r} is no name of a variable; write letters, digits and '_'")
        if PROTECTED_ENV.match(name):
            raise ValueError(f"{name} is set by SLURM and xgen for each attempt; remove it")
    return value


class Job(Strict):
    """The envelope around every kind of work."""

    spec_version: Literal[1] = 1
    name: str = Field(description="lower case letters, digits and dashes; the run is <name>-<6 characters>")
    project: str | None = Field(default=None, description="the SLURM account that is charged")
    cluster: str | None = Field(default=None, description="name of a cluster profile")
    resources: Resources
    container: Container = Field(default_factory=Container)
    restart: Restart = Field(default_factory=Restart)
    lead: Duration = Field(default=300, description="how long before the time limit the job is told to save")
    env: dict[str, str] = Field(default_factory=dict)
    secrets: dict[str, Secret] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?", value):
            fixed = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")[:48] or "my-run"
            raise ValueError(f"{value!r} has other characters than a-z, 0-9 and '-', or is too long; write {fixed}")
        return value

    @field_validator("env", mode="before")
    @classmethod
    def _env_values_are_text(cls, value: object) -> object:
        if isinstance(value, dict):
            return {
                k: str(v) if isinstance(v, int | float) and not isinstance(v, bool) else v for k, v in value.items()
            }
        return value

    @field_validator("env", "secrets")
    @classmethod
    def _env_names(cls, value: dict[str, object]) -> dict[str, object]:
        return check_env_names(value)

    @field_validator("env")
    @classmethod
    def _env_has_no_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if "\0" in text:
                raise ValueError(f"{name} holds a NUL, which no environment can; remove it")
            if SECRET_ENV.search(name):
                raise ValueError(
                    f"{name} looks like a secret, and env is printed and stored; "
                    f"write secrets: {{{name}: {{env: {name}}}}}"
                )
        return value


class Share(Strict):
    """The part of a mixture that one domain has. A number alone is its weight."""

    weight: Number = Field(gt=0, description="relative to the others; they need not sum to 1")
    max_epochs: Number | None = Field(
        default=None, gt=0, description="its text is never seen more often than this; default: data.max_epochs"
    )

    @model_validator(mode="before")
    @classmethod
    def _by_weight(cls, value: object) -> object:
        return {"weight": value} if isinstance(value, int | float) else value


class Data(Strict):
    """Text as tokens, and how samples are made of it. The order follows from this, `seq_len` and the seed alone."""

    store: str | None = Field(default=None, description="folder of a token store (`xgen data build`)")
    stores: dict[str, str] = Field(default_factory=dict, description="several stores by name, in place of `store`")
    mixtures: dict[str, dict[str, Share]] = Field(
        default_factory=dict,
        description="by name: {DOMAIN or STORE/DOMAIN or STORE/*: weight or {weight, max_epochs}}; "
        "without any, all text in proportion",
    )
    packing: Literal["best_fit", "none"] = Field(
        default="best_fit",
        description="best_fit: whole documents with masks, long ones split; none: plain windows, no masks, one store",
    )
    max_epochs: Number | None = Field(default=None, gt=0, description="for every part of a mixture")
    workers: Count = Field(default=1, ge=0, description="threads that prepare batches; 0: none, for debugging")
    prefetch: Count = Field(default=4, ge=1, description="micro-batches that are prepared ahead")

    @model_validator(mode="after")
    def _some_store(self) -> Self:
        if (self.store is None) == (not self.stores):
            said = "both `store` and `stores` given" if self.stores else "no store given"
            raise ValueError(f"{said}; write store: FOLDER, or stores: {{NAME: FOLDER}}")
        if bad := next((name for name in self.stores if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)), None):
            raise ValueError(f"stores: {bad!r} is no name; write letters, digits, '_', '.' and '-'")
        if empty := next((name for name, shares in self.mixtures.items() if not shares), None):
            raise ValueError(f"mixtures.{empty} is empty; write {{DOMAIN: WEIGHT}}, or leave it out")
        if self.packing == "none" and (self.stores or self.mixtures or self.max_epochs):
            raise ValueError("packing: none takes one store, no mixture and no cap; write packing: best_fit")
        return self

    @property
    def folders(self) -> dict[str, str]:
        """Folder of each store by its name."""
        return self.stores or {"main": self.store or ""}


class LearningRate(Strict):
    """Warm-up from 0 to `peak`, then the shape; `to` is reached at the stage's last step."""

    peak: Number = Field(gt=0)
    warmup: Steps = 0
    shape: Literal["stable", "linear", "cosine"] = "stable"
    to: Number = Field(default=0.0, ge=0)


class Parallelism(Strict):
    """`fsdp` ranks hold one copy of the model in shards, `replicate` such groups split the batch; the ranks of a `tp`
    (tensor) or `cp` (context) group share the samples of one."""

    fsdp: Count = Field(default=0, ge=0, description="0: all ranks that the others leave")
    replicate: Count = Field(default=1, ge=1)
    tp: Count = Field(default=1, ge=1, description="ranks that split every matrix; keep it inside a node")
    cp: Count = Field(default=1, ge=1, description="ranks that split the sequence, for long contexts")


class Stage(Strict):
    """One part of the training with its own data budget and schedule."""

    name: str
    tokens: Tokens
    mixture: str | None = Field(default=None, description="one of data.mixtures; default: the only one there is")
    seq_len: Length
    global_batch: Length = Field(description="tokens per optimizer step, over all ranks")
    micro_batch: Count = Field(default=1, ge=1, description="sequences per rank in one forward pass")
    rope_theta: Number = Field(default=1e4, gt=0)
    lr: LearningRate
    parallelism: Parallelism = Field(default_factory=Parallelism)

    @property
    def num_steps(self) -> int:
        return math.ceil(self.tokens / self.global_batch)

    @property
    def sequences_per_step(self) -> int:
        return self.global_batch // self.seq_len


class Checkpoint(Strict):
    every: Steps = Field(default=500, description="optimizer steps between periodic checkpoints")
    keep: Count = Field(default=2, ge=2, description="the newest complete checkpoints that are kept")
    keep_every: Steps = Field(default=0, description="also keep those of every so many steps; 0: none")
    keep_best: Count = Field(default=0, ge=0, description="also keep so many of the lowest training loss")
    mode: Literal["async", "sync"] = Field(
        default="async", description="async: written while training goes on; takes the state's size in host memory"
    )
    copy_to: str | None = Field(
        default=None, description="a second place for every checkpoint, as fsspec writes it, e.g. s3://bucket/runs"
    )

    @field_validator("every")
    @classmethod
    def _every(cls, value: int) -> int:
        if value < 1:
            raise ValueError(f"{value} would never save; write 1 or more")
        return value


class Pretrain(Job):
    """Pre-training of a decoder from a token store."""

    kind: Literal["pretrain"]
    model: ModelSpec = Field(description="a model's name, or its sizes")
    data: Data
    stages: list[Stage] = Field(min_length=1)
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    seed: Count = Field(default=0, ge=0)
    deterministic: bool = Field(default=False, description="bit-exact on GPUs too, at the cost of speed")

    @model_validator(mode="after")
    def _one_stage(self) -> Self:
        if len(self.stages) > 1:
            raise ValueError(f"stages: {len(self.stages)} stages are more than this version chains; write one")
        return self

    @model_validator(mode="after")
    def _mixtures_are_named(self) -> Self:
        known = self.data.mixtures
        for number, stage in enumerate(self.stages):
            if stage.mixture is None and len(known) > 1:
                raise ValueError(f"stages[{number}].mixture is missing; {nearest('', known)}")
            if stage.mixture is not None and stage.mixture not in known:
                hint = nearest(stage.mixture, known) if known else "there is none in data.mixtures"
                raise ValueError(f"stages[{number}].mixture: {stage.mixture!r} is not in data.mixtures; {hint}")
        return self

    @property
    def stage(self) -> Stage:
        return self.stages[0]

    def shares(self, stage: Stage) -> dict[str, Share]:
        """The mixture of a stage; empty: all text in proportion."""
        return self.data.mixtures[stage.mixture or next(iter(self.data.mixtures))] if self.data.mixtures else {}


class Command(Job):
    """Any program. Exit code 0 means finished, 75 saved and stopped on request, 78 do not try again.

    SIGUSR2 tells it to save and stop; it may keep checkpoints in `$XGEN_RUN_DIR/checkpoints/step-N/`,
    complete once `manifest.json` is there, which counts as progress.
    """

    kind: Literal["command"]
    command: list[str] = Field(min_length=1, description="program and arguments, started once per task")
    restart: Restart = Field(default_factory=lambda: Restart(max_failures=1))

    @field_validator("command", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError(f"{value!r} is text; write a list: [{', '.join(value.split())}]")
        return value


AnyJob = Annotated[Pretrain | Command, Field(discriminator="kind")]
KINDS: dict[str, type[Job]] = {"pretrain": Pretrain, "command": Command}
