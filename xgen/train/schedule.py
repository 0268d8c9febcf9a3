"""The learning rate of a stage, as a function of the step of the run: nothing of it needs to be carried over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torchtitan.components.optimizer import LRSchedulersContainer, OptimizersContainer

from xgen.spec import Place


class StageSchedule(LRSchedulersContainer):
    """`Place.learning_rate` for torchtitan, which counts the steps that are done, from 0 on, over all stages."""

    @dataclass(kw_only=True, slots=True)
    class Config(LRSchedulersContainer.Config):
        place: Any = None  # a Place: torchtitan's parser of configurations knows no pydantic

        def build(self, *, optimizers: OptimizersContainer, training_steps: int) -> StageSchedule:
            del training_steps
            return StageSchedule(optimizers, self.place)

    def __init__(self, optimizers: OptimizersContainer, place: Place) -> None:
        super().__init__(optimizers, lambda done: place.lr_factor(done + 1))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Also puts the rate of the next step where the optimizer reads it."""
        super().load_state_dict(state_dict)
        for scheduler in self.schedulers:
            for group, rate in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
                group["lr"] = rate
