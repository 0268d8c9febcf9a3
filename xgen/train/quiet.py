"""Telemetry of the ranks that nobody scrapes."""

from __future__ import annotations


class NoTelemetry:
    def on_step(
        self,
        step: int,
        loss: float,
        grad_norm: float,
        lr: float,
        tokens: int,
        step_seconds: float,
        data_wait_seconds: float,
    ) -> None:
        pass

    def on_checkpoint(self, step: int, seconds: float, time: float) -> None:
        pass

    def resumed(self, step: int) -> None:
        pass
