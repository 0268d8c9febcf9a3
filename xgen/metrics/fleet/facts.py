"""What the exporter keeps of a run's spec: thousands of specs would be a hundred megabytes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from xgen.runs import RunDir
from xgen.spec import Job, SpecError, Trained, load_resolved


@dataclass(frozen=True)
class Stage:
    """One of the jobs of a run. Steps and tokens are 0 for work that has none."""

    name: str
    partition: str  # '' for the cluster's default
    num_gpus: int  # of one job; of an array, of each shard
    is_array: bool = False
    num_nodes: int = 1  # as num_gpus
    num_cpus: int = 1
    first_step: int = 0  # steps and tokens of the stages before
    first_token: int = 0
    num_steps: int = 0
    batch: int = 0  # tokens a step


@dataclass(frozen=True)
class Facts:
    """Of a run whose spec cannot be read all is empty: what its events say is served all the same."""

    name: str = ""
    kind: str = ""
    project: str = ""
    stages: tuple[Stage, ...] = (Stage("", "", 0),)
    arrays: Job | None = None  # the whole spec, where a stage is a job array

    @property
    def planned_steps(self) -> int:
        """0 for work that trains nothing."""
        return self.stages[-1].first_step + self.stages[-1].num_steps

    @property
    def planned_tokens(self) -> int:
        return self.stages[-1].first_token + self.stages[-1].num_steps * self.stages[-1].batch

    def stage(self, name: str) -> Stage:
        """The first one, for a name that there is not."""
        return next((stage for stage in self.stages if stage.name == name), self.stages[0])

    def tokens_at(self, step: int) -> int:
        """Tokens since step 0."""
        stage = next((one for one in self.stages if step <= one.first_step + one.num_steps), self.stages[-1])
        return stage.first_token + (step - stage.first_step) * stage.batch


def read_facts(run: RunDir) -> Facts | None:
    """None where the spec cannot be read, or is none."""
    try:
        job = load_resolved(run.spec_file)
    except (OSError, SpecError):
        return None
    stages = tuple(
        Stage(
            name,
            resources.partition or "",
            resources.nodes * resources.gpus_per_node,
            is_array=bool(job.array_of(index)),
            num_nodes=resources.nodes,
            num_cpus=resources.world_size * resources.cpus_per_task,
        )
        for index, (name, resources) in enumerate(job.jobs)
    )
    if isinstance(job, Trained):
        stages = tuple(
            _trained(stage, job, index) if job.trains(index) else stage for index, stage in enumerate(stages)
        )
    arrays = job if any(stage.is_array for stage in stages) else None
    return Facts(job.name, job.kind, job.project or "", stages, arrays)


def _trained(stage: Stage, job: Trained, index: int) -> Stage:
    place = job.place_of(index)
    return replace(
        stage,
        first_step=place.first_step,
        first_token=place.first_token,
        num_steps=place.stage.num_steps,
        batch=place.stage.global_batch,
    )
