"""The job spec: one envelope around one kind of work, and the simplest kind, a command; the others have a file each.

What a field means stands in its description, which `xgen schema` prints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from xgen.spec.base import Count, Strict
from xgen.spec.container import Container
from xgen.spec.hang import AUTO, Hang
from xgen.spec.health import Health
from xgen.spec.notify import Notify
from xgen.spec.restart import Restart
from xgen.spec.units import Bytes, Duration

PROTECTED_ENV = re.compile(
    r"^(SLURM_.*|SBATCH_.*|SRUN_.*|XGEN_.*|MASTER_ADDR|MASTER_PORT|RANK|LOCAL_RANK|WORLD_SIZE"
    r"|PATH|PYTHONPATH|LD_PRELOAD|BASH_ENV|ENV|IFS)$"
)
SECRET_ENV = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL|PRIVATE_KEY", re.IGNORECASE)
_ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


class Resources(Strict):
    """What the job asks SLURM for. One task runs per GPU; without GPUs, one a node."""

    partition: str | None = Field(default=None, description="default: the profile's default partition")
    nodes: Count = Field(default=1, ge=1)
    gpus_per_node: Count = Field(default=1, ge=0, description="also the tasks per node; 0: no GPU, and one task")
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
    def tasks_per_node(self) -> int:
        return max(1, self.gpus_per_node)

    @property
    def world_size(self) -> int:
        return self.nodes * self.tasks_per_node


class Array(Strict):
    """A job array: so many shards of the work, each a job of `resources` that is preempted and tried again alone."""

    shards: Count = Field(ge=1, le=100_000, description="$XGEN_SHARD is 0 to shards - 1")
    at_once: Count = Field(default=0, ge=0, description="shards that run at the same time; 0: as many as SLURM lets")


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
    project: str | None = Field(
        default=None,
        description="one of the profile's projects; where it lists none, the SLURM account that is charged",
    )
    cluster: str | None = Field(default=None, description="name of a cluster profile")
    resources: Resources
    container: Container = Field(default_factory=Container)
    restart: Restart = Field(default_factory=Restart)
    hang: Hang = Field(default_factory=Hang)
    health: Health = Field(default_factory=Health)
    notify: Notify | None = Field(default=None, description="who is told of what happens to the run")
    lead: Duration = Field(default=300, description="how long before the time limit the job is told to save")
    env: dict[str, str] = Field(default_factory=dict)
    secrets: dict[str, Secret] = Field(default_factory=dict)

    @property
    def jobs(self) -> tuple[tuple[str, Resources], ...]:
        """Name and resources of each job that the work is done in, one after the other; the only one has no name."""
        return (("", self.resources),)

    def serves(self, stage: int) -> bool:
        """Whether a job serves the next one: it starts beside it, runs until the run has ended, and its own end is none
        of the run's. Always a job array, and never the last."""
        del stage
        return False

    def image_of(self, stage: int) -> str | None:
        """The image of one of the jobs, as the spec names it."""
        del stage
        return self.container.image

    def array_of(self, stage: int) -> Array | None:
        """The shards of one of the jobs; None for one that is no array."""
        del stage
        return None

    @model_validator(mode="after")
    def _guards_one_job(self) -> Self:
        arrays = (self.array_of(stage) for stage in range(len(self.jobs)) if not self.serves(stage))
        if self.restart.guard and any(arrays):
            raise ValueError("restart.guard: a job array has no guard; remove it, the next xgen command settles it")
        return self

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?", value):
            fixed = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")[:48] or "my-run"
            raise ValueError(f"{value!r} has other characters than a-z, 0-9 and '-', or is too long; write {fixed}")
        return value

    @field_validator("env", mode="before", json_schema_input_type=dict[str, str | int | float])
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


class Command(Job):
    """Any program. Exit code 0 means finished, 75 saved and stopped on request, 78 do not try again.

    SIGUSR2 tells it to save and stop; it may keep checkpoints in `$XGEN_RUN_DIR/checkpoints/step-N/`,
    complete once `manifest.json` is there, which counts as progress.
    """

    kind: Literal["command"]
    command: list[str] = Field(min_length=1, description="program and arguments, started once per task")
    array: Array | None = Field(default=None, description="the same command for each of many shards")
    restart: Restart = Field(default_factory=lambda: Restart(max_failures=1))
    hang: Hang = Field(default_factory=lambda: Hang.model_validate({"limit": "never"}))

    def array_of(self, stage: int) -> Array | None:
        del stage
        return self.array

    @field_validator("restart", mode="before")
    @classmethod
    def _fails_once(cls, value: object) -> object:
        """A command that says something else about its restarts keeps its own default."""
        return {"max_failures": 1, **value} if isinstance(value, dict) else value

    @field_validator("hang")
    @classmethod
    def _no_steps(cls, value: Hang) -> Hang:
        if value.limit == AUTO:
            raise ValueError("a command has no steps to learn a limit from; write hang: {limit: 30m}")
        return value

    @field_validator("command", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError(f"{value!r} is text; write a list: [{', '.join(value.split())}]")
        return value
