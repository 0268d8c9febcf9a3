"""The cluster profile: all that differs between clusters, written once (`slurm/clusters/`)."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from xgen.spec.base import Number, Strict, nearest
from xgen.spec.container import Mount, RuntimeName
from xgen.spec.errors import Problem, SpecError
from xgen.spec.health import Nodes
from xgen.spec.job import check_env_names
from xgen.spec.notify import SiteNotify
from xgen.spec.restart import RestartBy
from xgen.spec.teams import Project
from xgen.spec.units import Bytes, Duration, Rate


class Partition(Strict):
    max_time: Duration = Field(default=86400, description="the partition's own limit")
    preemptible: bool = False
    grace: Duration = Field(
        default=0, description="GraceTime: what a preempted job gets to save; SLURM's default is 0s"
    )
    default: bool = False


class Gpus(Strict):
    """How GPUs are asked for here, and what one can do (`xgen plan`)."""

    request: Literal["gpus-per-node", "gres", "none"] = "gpus-per-node"
    type: str | None = None
    devices: str | None = Field(
        default=None,
        description="device file of a GPU, {} for its number; default: NVIDIA's, found by the runtime's own means",
    )
    flops: Rate = Field(default=989e12, description="dense bf16 FLOP/s of one GPU at its peak")
    memory: Bytes | None = Field(default=None, description="of one GPU, e.g. 80GB; default: not checked")
    mfu: Number = Field(default=0.35, gt=0, le=1, description="the share of it that training reaches")


class ContainerSetup(Strict):
    """Which runtime starts images here, where they lie, and what every container needs."""

    runtime: RuntimeName = "none"
    image_dir: str | None = Field(default=None, description="folder of images on the shared file system")
    python: str | None = Field(default=None, description="the interpreter inside; default: python3, or xgen's own")
    mounts: list[Mount] = Field(default_factory=list)
    devices: list[str] = Field(default_factory=list, description="of the host, e.g. /dev/infiniband")


class Tls(Strict):
    cert: str = Field(description="PEM file of the certificate, with its chain")
    key: str = Field(description="PEM file of its key")


class BasicAuth(Strict):
    file: str = Field(description="lines name:password; nobody but its owner may read it")


class Metrics(Strict):
    """How metrics are served here: by rank 0 of each run on a free port, and by `xgen exporter`."""

    address: str = Field(default="127.0.0.1", description="address that exporters bind")
    port: int = Field(default=9817, ge=0, le=65535, description="of `xgen exporter`; 0: a free one, which it prints")
    gpu_port: int = Field(default=9400, ge=0, le=65535, description="of `xgen exporter --gpus`, as dcgm-exporter's")
    tls: Tls | None = Field(default=None, description="of `xgen exporter`; default: none")
    basic_auth: BasicAuth | None = Field(default=None, description="of `xgen exporter`; default: none")
    slurm_output: Literal["rows", "json"] = Field(
        default="rows", description="what squeue and sinfo are asked for; json is slower, and needs SLURM 21.08"
    )
    settle: bool = Field(
        default=False, description="`xgen exporter` settles runs of its own user that ended without a decision"
    )


class Profile(Strict):
    """One cluster."""

    scheduler: Literal["slurm", "local"] = "slurm"
    run_root: str = Field(description="folder on the file system that all nodes share")
    partitions: dict[str, Partition] = Field(min_length=1)
    gpus: Gpus = Field(default_factory=Gpus)
    container: ContainerSetup = Field(default_factory=ContainerSetup)
    env: dict[str, str] = Field(default_factory=dict, description="network and library settings of every job")
    kill_wait: Duration = Field(default=30, description="KillWait: from SIGTERM to SIGKILL at the time limit")
    write_bandwidth: Bytes = Field(default=2**30, description="bytes/s that one node writes to run_root")
    aggregate_write_bandwidth: Bytes | None = Field(
        default=None, description="bytes/s that all nodes of a job together write to run_root; default: no limit"
    )
    restart_by: RestartBy = Field(default="requeue", description="of runs whose spec does not say it")
    metrics: Metrics = Field(default_factory=Metrics)
    nodes: Nodes = Field(default_factory=Nodes)
    notify: SiteNotify | None = Field(default=None, description="who is told of all runs, and how mail is sent")
    projects: dict[str, Project] = Field(
        default_factory=dict, description="that a spec may name; none: `project:` of a spec is the account itself"
    )
    srun_args: list[str] = Field(default_factory=list, description="more arguments for srun, e.g. --mpi=none")

    @field_validator("env")
    @classmethod
    def _env_names(cls, value: dict[str, str]) -> dict[str, str]:
        return check_env_names(value)

    @field_validator("gpus")
    @classmethod
    def _devices(cls, value: Gpus) -> Gpus:
        if value.devices is not None and value.devices.count("{}") != 1:
            raise ValueError(f"devices: {value.devices!r} has no place for a number; write e.g. /dev/gpu{{}}")
        return value

    @model_validator(mode="after")
    def _one_default(self) -> Profile:
        defaults = [name for name, p in self.partitions.items() if p.default]
        if len(defaults) > 1:
            raise ValueError(f"partitions: {', '.join(defaults)} are all default; write `default: true` once")
        return self

    @property
    def default_partition(self) -> str:
        """The one marked default, else the first."""
        return next((name for name, p in self.partitions.items() if p.default), next(iter(self.partitions)))

    def account_of(self, project: str | None) -> str | None:
        """The SLURM account that is charged for a project: what no profile lists is an account itself."""
        listed = self.projects.get(project) if project is not None else None
        return (listed and listed.account) or project


def with_runtime(profile: Profile, runtime: str) -> Profile:
    """The profile with another container runtime. Raises SpecError for one that there is not."""
    if runtime not in get_args(RuntimeName):
        raise SpecError(
            Problem("", "--runtime", f"{runtime!r} is not known; {nearest(runtime, get_args(RuntimeName))}")
        )
    container = profile.container.model_copy(update={"runtime": runtime})
    return profile.model_copy(update={"container": container})
