"""What people write: job specs and cluster profiles, validated. pydantic and YAML only."""

from xgen.spec.cluster import Partition, Profile, with_runtime
from xgen.spec.container import Container, Mount, RuntimeName
from xgen.spec.errors import Problem, SpecError
from xgen.spec.job import (
    PROTECTED_ENV,
    SECRET_ENV,
    Checkpoint,
    Command,
    Data,
    Job,
    LearningRate,
    Parallelism,
    Pretrain,
    Resources,
    Secret,
    Share,
    Stage,
)
from xgen.spec.load import LoadedJob, dump, find_profile, load_job, load_profile, load_resolved, project_root
from xgen.spec.models import MODELS, ModelSpec

__all__ = [
    "MODELS",
    "PROTECTED_ENV",
    "SECRET_ENV",
    "Checkpoint",
    "Command",
    "Container",
    "Data",
    "Job",
    "LearningRate",
    "LoadedJob",
    "ModelSpec",
    "Mount",
    "Parallelism",
    "Partition",
    "Pretrain",
    "Problem",
    "Profile",
    "Resources",
    "RuntimeName",
    "Secret",
    "Share",
    "SpecError",
    "Stage",
    "dump",
    "find_profile",
    "load_job",
    "load_profile",
    "load_resolved",
    "project_root",
    "with_runtime",
]
