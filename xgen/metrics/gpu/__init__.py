"""GPUs: which run holds which, from SLURM, and on a node what each does, under dcgm-exporter's names."""

from xgen.metrics.gpu.allocated import Allocated
from xgen.metrics.gpu.nvml import Nvml

__all__ = ["Allocated", "Nvml"]
