"""Every kind of work by its name in a spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from xgen.spec.curate import Curate
from xgen.spec.evaluate import Evaluate
from xgen.spec.export import Export
from xgen.spec.job import Command, Job
from xgen.spec.pretrain import Pretrain
from xgen.spec.regmix import Regmix
from xgen.spec.rl import Rl
from xgen.spec.sft import Preference, Sft
from xgen.spec.sweep import Sweep

Work = Curate | Pretrain | Regmix | Sft | Preference | Rl | Command | Export | Evaluate | Sweep
AnyJob = Annotated[Work, Field(discriminator="kind")]
KINDS: dict[str, type[Job]] = {
    "curate": Curate, "pretrain": Pretrain, "regmix": Regmix, "sft": Sft, "preference": Preference, "rl": Rl,
    "evaluate": Evaluate, "command": Command, "export": Export, "sweep": Sweep,
}  # fmt: skip
