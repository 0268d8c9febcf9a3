"""What runs within a trainer of the lab: its pace, and the faults that no signal can plant.

`Lab.train` has the run's own copy of the code call this. What is asked for stands in small files of the run directory,
a number each, so that it can change while the training goes on.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.alarms import FACTOR


def plant(module: dict[str, Any]) -> None:
    """`module`: the globals of xgen.train.trainer."""
    from xgen.train.loader import StoreLoader as loader  # noqa: N813 - a class that is changed

    trainer = module["JobTrainer"]
    folder = Path(os.environ["XGEN_RUN_DIR"]) / "planted"
    train_step, forward_backward, batches = trainer.train_step, trainer._forward_backward, loader.__iter__

    def asked(name: str) -> float:
        try:
            return float((folder / name).read_text())
        except FileNotFoundError:
            return 0.0

    def paced(self: Any, data: Any) -> None:
        time.sleep(asked("step"))
        train_step(self, data)

    def waiting(self: Any) -> Iterator[Any]:
        for batch in batches(self):
            time.sleep(asked("batch"))
            yield batch

    def spoilt(self: Any, data: Any) -> Any:
        loss = forward_backward(self, data)
        return loss * math.nan if self.step <= asked("nan") else loss

    trainer.train_step, trainer._forward_backward, loader.__iter__ = paced, spoilt, waiting
    module["_PROGRESS_EVERY"] /= FACTOR
