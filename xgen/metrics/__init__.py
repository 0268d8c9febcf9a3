"""Prometheus: the exporter of a run, and the file by which Prometheus finds it."""

from xgen.metrics.discovery import remove_target, write_target
from xgen.metrics.run import RunExporter, TrainingPlan

__all__ = ["RunExporter", "TrainingPlan", "remove_target", "write_target"]
