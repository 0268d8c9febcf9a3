"""What ended without a decision is settled by the next command that looks at the run, and the person is told so."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xgen.cluster.status import QueueView
    from xgen.runs import RunDir


def settled_view(run: RunDir, who: str) -> QueueView:
    """The queue's answer for a run, once what was to settle of it is settled; `who` is the command."""
    from xgen.cluster.settle import NotSettledError, settle
    from xgen.cluster.status import ask_slurm

    view = ask_slurm([run])
    try:
        said = settle(run, view, who)
    except OSError:  # its state says that it cannot be read
        return view
    except NotSettledError as error:
        said = str(error)
    if said is None:
        return view
    print(said, file=sys.stderr)
    return ask_slurm([run])
