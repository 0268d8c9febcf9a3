"""What people write: job specs and cluster profiles, validated. pydantic and YAML only."""

from xgen.spec.cluster import Partition, Profile, with_runtime
from xgen.spec.container import Container, Mount, RuntimeName
from xgen.spec.curate import Curate
from xgen.spec.errors import Problem, SpecError
from xgen.spec.evaluate import Checkpoints, Evaluate, Harness, NeedleMap, Perplexity, Recall, RulerSuite
from xgen.spec.export import Export
from xgen.spec.job import PROTECTED_ENV, SECRET_ENV, Array, Command, Job, Resources, Secret
from xgen.spec.kinds import Work
from xgen.spec.load import LoadedJob, dump, find_profile, load_job, load_profile, load_resolved, project_root
from xgen.spec.models import MODELS, ModelSpec
from xgen.spec.posttrain import ChatData, ChatSource, ChatValidation, Init, Layout, Tuned
from xgen.spec.pretrain import Data, Pretrain, Share, Validation
from xgen.spec.regmix import Regmix
from xgen.spec.rewards import Limits, Reward, Verification
from xgen.spec.rl import Prompts, Rl, RlLoss, Rollout, Servers
from xgen.spec.sft import Preference, PreferenceLoss, Sft
from xgen.spec.ssh import ElsewhereError, Ssh, parse_login
from xgen.spec.stage import LearningRate, Parallelism, Place, RopeScaling, Stage
from xgen.spec.sweep import Sweep
from xgen.spec.teams import Budget, Project, Quota
from xgen.spec.trained import Checkpoint, Guard, Lora, Optimizer, Sinks, Trained, WandB

__all__ = [
    "MODELS",
    "PROTECTED_ENV",
    "SECRET_ENV",
    "Array",
    "Budget",
    "ChatData",
    "ChatSource",
    "ChatValidation",
    "Checkpoint",
    "Checkpoints",
    "Command",
    "Container",
    "Curate",
    "Data",
    "ElsewhereError",
    "Evaluate",
    "Export",
    "Guard",
    "Harness",
    "Init",
    "Job",
    "Layout",
    "LearningRate",
    "Limits",
    "LoadedJob",
    "Lora",
    "ModelSpec",
    "Mount",
    "NeedleMap",
    "Optimizer",
    "Parallelism",
    "Partition",
    "Perplexity",
    "Place",
    "Preference",
    "PreferenceLoss",
    "Pretrain",
    "Problem",
    "Profile",
    "Project",
    "Prompts",
    "Quota",
    "Recall",
    "Regmix",
    "Resources",
    "Reward",
    "Rl",
    "RlLoss",
    "Rollout",
    "RopeScaling",
    "RulerSuite",
    "RuntimeName",
    "Secret",
    "Servers",
    "Sft",
    "Share",
    "Sinks",
    "SpecError",
    "Ssh",
    "Stage",
    "Sweep",
    "Trained",
    "Tuned",
    "Validation",
    "Verification",
    "WandB",
    "Work",
    "dump",
    "find_profile",
    "load_job",
    "load_profile",
    "load_resolved",
    "parse_login",
    "project_root",
    "with_runtime",
]
