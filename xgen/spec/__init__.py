"""What people write: job specs and cluster profiles, validated. pydantic and YAML only."""

from xgen.spec.cluster import Partition, Profile, with_runtime
from xgen.spec.container import Container, Mount, RuntimeName
from xgen.spec.curate import Curate
from xgen.spec.errors import Problem, SpecError
from xgen.spec.export import Export
from xgen.spec.job import PROTECTED_ENV, SECRET_ENV, Array, Command, Job, Resources, Secret
from xgen.spec.kinds import Work
from xgen.spec.load import LoadedJob, dump, find_profile, load_job, load_profile, load_resolved, project_root
from xgen.spec.models import MODELS, ModelSpec
from xgen.spec.pretrain import Data, Pretrain, Share, Validation
from xgen.spec.regmix import Regmix
from xgen.spec.stage import LearningRate, Parallelism, Place, RopeScaling, Stage
from xgen.spec.trained import Checkpoint, Guard, Optimizer, Sinks, Trained, WandB

__all__ = [
    "MODELS",
    "PROTECTED_ENV",
    "SECRET_ENV",
    "Array",
    "Checkpoint",
    "Command",
    "Container",
    "Curate",
    "Data",
    "Export",
    "Guard",
    "Job",
    "LearningRate",
    "LoadedJob",
    "ModelSpec",
    "Mount",
    "Optimizer",
    "Parallelism",
    "Partition",
    "Place",
    "Pretrain",
    "Problem",
    "Profile",
    "Regmix",
    "Resources",
    "RopeScaling",
    "RuntimeName",
    "Secret",
    "Share",
    "Sinks",
    "SpecError",
    "Stage",
    "Trained",
    "Validation",
    "WandB",
    "Work",
    "dump",
    "find_profile",
    "load_job",
    "load_profile",
    "load_resolved",
    "project_root",
    "with_runtime",
]
