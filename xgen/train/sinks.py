"""Where metrics go besides the run directory and Prometheus: TensorBoard and Weights & Biases, both off by default.

A sink that fails, at its start or in the midst of the training, is given up with a word: the run directory has it all.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from xgen.runs import Refused, RunDir
from xgen.spec import Pretrain

Sink = Callable[[Mapping[str, float], int], None]  # values by name, and the step
Close = Callable[[], Any]


class Sinks:
    """All that the spec asks for; on rank 0 only. Without any, telling them costs nothing."""

    def __init__(self, job: Pretrain, run: RunDir) -> None:
        """Raises Refused for a sink whose package is missing."""
        self._sinks: dict[str, tuple[Sink, Close]] = {}
        if job.sinks.tensorboard:
            self._open("TensorBoard", "tensorboard", lambda: _tensorboard(run))
        if job.sinks.wandb:
            self._open("Weights & Biases", "wandb", lambda: _wandb(job, run))

    def __bool__(self) -> bool:
        return bool(self._sinks)

    def tell(self, values: Mapping[str, float], step: int) -> None:
        for name, (sink, _) in list(self._sinks.items()):
            with self._or_give_up(name):
                sink(values, step)

    def close(self) -> None:
        for name, (_, close) in list(self._sinks.items()):
            with self._or_give_up(name):
                close()

    def _open(self, name: str, package: str, sink: Callable[[], tuple[Sink, Close]]) -> None:
        if importlib.util.find_spec(package) is None:
            said = f"the package {package} is not in the image; install it there, or leave the sink out"
            raise Refused(f"sinks.{package}: {said}")
        with self._or_give_up(name):
            self._sinks[name] = sink()

    @contextmanager
    def _or_give_up(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever a service or a full disk comes up with
            print(f"{name} is given up, the training goes on: {error}", file=sys.stderr, flush=True)
            self._sinks.pop(name, None)


def _tensorboard(run: RunDir) -> tuple[Sink, Close]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.metrics_dir / "tensorboard"), flush_secs=30)

    def tell(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return tell, writer.close


def _wandb(job: Pretrain, run: RunDir) -> tuple[Sink, Close]:
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
    # Our step as a value: W&B drops what comes with a step of its own below the last, as after a resume.
    opened.define_metric("*", step_metric="step")
    return lambda values, step: opened.log({**values, "step": step}), opened.finish
