"""Where the numbers of the steps go besides the run directory and Prometheus: TensorBoard, Weights & Biases.

They are there for people who compare runs in them. None of them may end a training: what they raise is said once.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any

from xgen.runs import Refused, RunDir
from xgen.spec import Pretrain

Sink = Callable[[Mapping[str, float], int], None]  # values by name, and the step


class Sinks:
    """All that the spec asks for; on rank 0 only. Without any, telling them costs nothing."""

    def __init__(self, job: Pretrain, run: RunDir) -> None:
        """Raises Refused for a sink whose package is missing."""
        self._sinks: dict[str, Sink] = {}
        self._closers: list[Callable[[], Any]] = []
        if job.sinks.tensorboard:
            self._open_tensorboard(run)
        if job.sinks.wandb:
            self._open_wandb(job, run)

    def tell(self, values: Mapping[str, float], step: int) -> None:
        for name, sink in list(self._sinks.items()):
            try:
                sink(values, step)
            except Exception as error:  # noqa: BLE001 - whatever a service or a full disk comes up with
                print(f"{name} is given up, the training goes on: {error}", file=sys.stderr, flush=True)
                del self._sinks[name]

    def close(self) -> None:
        for close in self._closers:
            try:
                close()
            except Exception as error:  # noqa: BLE001 - as above
                print(f"a sink did not close: {error}", file=sys.stderr, flush=True)

    def _open_tensorboard(self, run: RunDir) -> None:
        _need("tensorboard", "sinks.tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(run.metrics_dir / "tensorboard"), flush_secs=30)

        def tell(values: Mapping[str, float], step: int) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        self._sinks["TensorBoard"] = tell
        self._closers.append(writer.close)

    def _open_wandb(self, job: Pretrain, run: RunDir) -> None:
        _need("wandb", "sinks.wandb")
        import wandb

        assert job.sinks.wandb
        settings = job.sinks.wandb
        # One id for all attempts: a resumed run goes on in the same curves.
        opened = wandb.init(
            project=settings.project,
            entity=settings.entity,
            mode=settings.mode,
            id=run.name,
            name=run.name,
            resume="allow",
            dir=str(run.metrics_dir),
            config=job.model_dump(mode="json", exclude={"env", "secrets"}),
        )
        self._sinks["Weights & Biases"] = lambda values, step: opened.log(dict(values), step=step)
        self._closers.append(opened.finish)


def _need(package: str, key: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise Refused(f"{key}: the package {package} is not in the image; install it there, or leave the sink out")
