"""Every kind of work by its name in a spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from xgen.spec.curate import Curate
from xgen.spec.export import Export
from xgen.spec.job import Command, Job
from xgen.spec.pretrain import Pretrain
from xgen.spec.regmix import Regmix

Work = Curate | Pretrain | Regmix | Command | Export
AnyJob = Annotated[Work, Field(discriminator="kind")]
KINDS: dict[str, type[Job]] = {
    "curate": Curate, "pretrain": Pretrain, "regmix": Regmix, "command": Command, "export": Export,
}  # fmt: skip
