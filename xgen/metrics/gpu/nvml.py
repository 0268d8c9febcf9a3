"""The GPUs of this node through NVML, under dcgm-exporter's names, units and labels, where there is no DCGM.

A value that a GPU does not have is absent. One that fell off the bus keeps its last XID, which says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import Metric

from xgen.metrics.exporter import CollectorError, SetupError

_LABELS = ("gpu", "UUID", "pci_bus_id", "device", "modelName", "Hostname")
_MAX_EVENTS = 1000  # of one poll
_MIB = 1 << 20
_Read = Callable[[Any, Any], float]  # of NVML's module and a device


def _memory(nvml: Any, device: Any) -> Any:
    return nvml.nvmlDeviceGetMemoryInfo(device, nvml.nvmlMemory_v2)  # `used` without what the driver reserves


def _ecc(kind: str, lifetime: str) -> _Read:
    def read(nvml: Any, device: Any) -> float:
        error, counter = getattr(nvml, f"NVML_MEMORY_ERROR_TYPE_{kind}"), getattr(nvml, f"NVML_{lifetime}_ECC")
        count: int = nvml.nvmlDeviceGetTotalEccErrors(device, error, counter)
        return count

    return read


_VALUES: dict[str, tuple[str, _Read]] = {
    "SM_CLOCK": ("SM clock frequency (in MHz).", lambda n, d: n.nvmlDeviceGetClockInfo(d, n.NVML_CLOCK_SM)),
    "MEM_CLOCK": ("Memory clock frequency (in MHz).", lambda n, d: n.nvmlDeviceGetClockInfo(d, n.NVML_CLOCK_MEM)),
    "GPU_TEMP": ("GPU temperature (in C).", lambda n, d: n.nvmlDeviceGetTemperature(d, n.NVML_TEMPERATURE_GPU)),
    "POWER_USAGE": ("Power draw (in W).", lambda n, d: n.nvmlDeviceGetPowerUsage(d) / 1000),
    "TOTAL_ENERGY_CONSUMPTION": (
        "Total energy consumption since boot (in mJ).",
        lambda n, d: n.nvmlDeviceGetTotalEnergyConsumption(d),
    ),
    "PCIE_REPLAY_COUNTER": ("Total number of PCIe retries.", lambda n, d: n.nvmlDeviceGetPcieReplayCounter(d)),
    "GPU_UTIL": ("GPU utilization (in %).", lambda n, d: n.nvmlDeviceGetUtilizationRates(d).gpu),
    "MEM_COPY_UTIL": ("Memory utilization (in %).", lambda n, d: n.nvmlDeviceGetUtilizationRates(d).memory),
    "FB_FREE": ("Framebuffer memory free (in MiB).", lambda n, d: _memory(n, d).free // _MIB),
    "FB_USED": ("Framebuffer memory used (in MiB).", lambda n, d: _memory(n, d).used // _MIB),
    "ECC_SBE_VOL_TOTAL": ("Single-bit ECC errors since the driver was loaded.", _ecc("CORRECTED", "VOLATILE")),
    "ECC_DBE_VOL_TOTAL": ("Double-bit ECC errors since the driver was loaded.", _ecc("UNCORRECTED", "VOLATILE")),
    "ECC_SBE_AGG_TOTAL": ("Single-bit ECC errors of the GPU's life.", _ecc("CORRECTED", "AGGREGATE")),
    "ECC_DBE_AGG_TOTAL": ("Double-bit ECC errors of the GPU's life.", _ecc("UNCORRECTED", "AGGREGATE")),
    "CORRECTABLE_REMAPPED_ROWS": (
        "Number of remapped rows for correctable errors.",
        lambda n, d: n.nvmlDeviceGetRemappedRows(d)[0],
    ),
    "UNCORRECTABLE_REMAPPED_ROWS": (
        "Number of remapped rows for uncorrectable errors.",
        lambda n, d: n.nvmlDeviceGetRemappedRows(d)[1],
    ),
    "ROW_REMAP_FAILURE": (
        "Whether remapping of rows has failed.",
        lambda n, d: n.nvmlDeviceGetRemappedRows(d)[3],
    ),
}


@dataclass
class _Gpu:
    device: Any
    labels: dict[str, str]
    xid: int | None = None  # the last one; None: this GPU does not tell


class Nvml:
    name = "nvml"
    interval = 10.0
    timeout = 10.0  # not held: a driver that hangs holds up this collector only

    def __init__(self) -> None:
        """Raises SetupError without nvidia-ml-py, or without a driver."""
        try:
            import pynvml
        except ImportError:
            raise SetupError("--gpus: nvidia-ml-py is not installed; write: pip install 'xgen[nvml]'") from None
        self._nvml: Any = pynvml
        self._gpus: list[_Gpu] = []
        try:
            self._open()
        except pynvml.NVMLError as error:
            raise SetupError(f"--gpus: {error}: is there an NVIDIA GPU here, and its driver loaded?") from None
        if not self._gpus:
            raise SetupError("--gpus: the driver knows of no GPU here")

    def poll(self) -> Iterable[Metric]:
        try:
            if not self._gpus:
                self._open()
            self._take_events()
            metrics = list(self._metrics())
        except self._nvml.NVMLError as error:
            self._close()
            raise CollectorError("missing", f"NVML: {error}") from None
        if not any(metric.samples for metric in metrics[:-1]) and not any(gpu.xid for gpu in self._gpus):
            self._close()  # a driver that was loaded anew knows us no longer
            raise CollectorError("missing", "NVML: no GPU says anything")
        return metrics

    def _open(self) -> None:
        nvml = self._nvml
        nvml.nvmlInit()
        self._events = nvml.nvmlEventSetCreate()
        host = socket.gethostname().partition(".")[0]  # as SLURM names a node
        for number in range(nvml.nvmlDeviceGetCount()):
            with contextlib.suppress(nvml.NVMLError_GpuIsLost):
                device = nvml.nvmlDeviceGetHandleByIndex(number)
                pci, name = nvml.nvmlDeviceGetPciInfo(device).busId, nvml.nvmlDeviceGetName(device)
                texts = (str(number), nvml.nvmlDeviceGetUUID(device), _text(pci), f"nvidia{number}", name, host)
                gpu = _Gpu(device, dict(zip(_LABELS, texts, strict=True)))
                with contextlib.suppress(nvml.NVMLError_NotSupported):
                    nvml.nvmlDeviceRegisterEvents(device, nvml.nvmlEventTypeXidCriticalError, self._events)
                    gpu.xid = 0
                self._gpus.append(gpu)

    def _close(self) -> None:
        self._gpus = []
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def _take_events(self) -> None:
        """XIDs since the last poll. The driver keeps them, so none is missed in between."""
        known = {_address(gpu.device): gpu for gpu in self._gpus}
        with contextlib.suppress(self._nvml.NVMLError_Timeout, self._nvml.NVMLError_GpuIsLost):
            for _ in range(_MAX_EVENTS):
                event = self._nvml.nvmlEventSetWait(self._events, 0)
                if gpu := known.get(_address(event.device)):
                    gpu.xid = event.eventData

    def _metrics(self) -> Iterator[Metric]:
        for name, (text, read) in _VALUES.items():
            family = Metric(f"DCGM_FI_DEV_{name}", text, "gauge")  # a counter's name would end in _total
            for gpu in self._gpus:
                with contextlib.suppress(self._nvml.NVMLError):
                    family.add_sample(family.name, gpu.labels, read(self._nvml, gpu.device))
            yield family
        family = Metric("DCGM_FI_DEV_XID_ERRORS", "Value of the last XID error encountered.", "gauge")
        for gpu in self._gpus:
            if gpu.xid is not None:
                family.add_sample(family.name, gpu.labels, gpu.xid)
        yield family


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _address(device: Any) -> int | None:
    return ctypes.cast(device, ctypes.c_void_p).value
