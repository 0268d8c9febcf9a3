"""Every kind of work by its name in a spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from xgen.spec.curate import Curate
from xgen.spec.export import Export
from xgen.spec.job import Command, Job
from xgen.spec.pretrain import Pretrain

Work = Curate | Pretrain | Command | Export
AnyJob = Annotated[Work, Field(discriminator="kind")]
KINDS: dict[str, type[Job]] = {"curate": Curate, "pretrain": Pretrain, "command": Command, "export": Export}
