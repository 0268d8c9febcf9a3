"""What a checkpoint has of the optimizer: the moments of every parameter.

Not its settings, which are the spec's and which torchtitan would save once for every parameter: three quarters of all
entries, planned by rank 0 for every rank.
"""

from __future__ import annotations

from typing import Any

from torch.distributed.checkpoint.stateful import Stateful
from torchtitan.components.optimizer import OptimizersContainer

_SETTINGS = "param_groups."


class Moments(Stateful):
    """Saves and loads them. Settings that an earlier version saved are not read."""

    def __init__(self, optimizers: OptimizersContainer) -> None:
        self._optimizers = optimizers

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in self._entries() if not name.startswith(_SETTINGS)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        settings = {name: value for name, value in self._entries() if name.startswith(_SETTINGS)}
        self._optimizers.load_state_dict(settings | state_dict)  # torchtitan wants them, too

    def _entries(self) -> Any:
        return self._optimizers.state_dict().items()
