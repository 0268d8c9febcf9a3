/* libnvidia-ml with two GPUs, as far as `xgen exporter --gpus` calls it; the signatures are those of nvml.h.
 * The second has no ECC and no energy counter. $FAKE_NVML is a folder: `xid` there is read once, lines "gpu xid";
 * `lost` makes GPU 0 fall off the bus; `gone` makes everything fail as after the driver was unloaded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, UNINITIALIZED = 1, NOT_SUPPORTED = 3, TIMEOUT = 10, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };
struct device { unsigned index; } gpus[2] = {{0}, {1}};
typedef struct device *device_t;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } rates_t;
typedef struct { device_t device; unsigned long long type, data; unsigned gpu_instance, compute_instance; } event_t;
static FILE *events;
static unsigned long long registered[2];
static int ready;

static const char *path(const char *name) {
  static char text[4096];
  snprintf(text, sizeof text, "%s/%s", getenv("FAKE_NVML"), name);
  return text;
}

static int check(device_t d) {
  if (!ready || access(path("gone"), F_OK) == 0) return UNINITIALIZED;
  return d->index == 0 && access(path("lost"), F_OK) == 0 ? GPU_IS_LOST : OK;
}

#define GIVE(d, to, value) do { int failed = check(d); if (failed) return failed; *(to) = (value); return OK; } while (0)

int nvmlInitWithFlags(unsigned flags) { return access(path("gone"), F_OK) == 0 ? DRIVER_NOT_LOADED : (ready = 1, OK); }
int nvmlShutdown(void) { ready = 0; return OK; }
const char *nvmlErrorString(int error) { return error == DRIVER_NOT_LOADED ? "Driver Not Loaded" : "an error"; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, device_t *d) { *d = &gpus[i]; return OK; }
int nvmlDeviceGetUUID(device_t d, char *to, unsigned n) { snprintf(to, n, "GPU-0000-%u", d->index); return OK; }
int nvmlDeviceGetName(device_t d, char *to, unsigned n) { snprintf(to, n, "NVIDIA H100 80GB HBM3"); return OK; }
int nvmlDeviceGetPciInfo_v3(device_t d, pci_t *to) {
  memset(to, 0, sizeof *to);
  snprintf(to->bus_id, sizeof to->bus_id, "00000000:0%u:00.0", d->index + 7);
  return OK;
}
int nvmlDeviceGetUtilizationRates(device_t d, rates_t *to) { rates_t r = {90 + d->index, 40}; GIVE(d, to, r); }
int nvmlDeviceGetPowerUsage(device_t d, unsigned *to) { GIVE(d, to, 651500); }
int nvmlDeviceGetTemperature(device_t d, int sensor, unsigned *to) { GIVE(d, to, 61 + sensor); }
int nvmlDeviceGetClockInfo(device_t d, int kind, unsigned *to) { GIVE(d, to, kind == 1 ? 1980 : kind == 2 ? 2619 : 7); }
int nvmlDeviceGetPcieReplayCounter(device_t d, unsigned *to) { GIVE(d, to, 3); }
int nvmlDeviceGetTotalEnergyConsumption(device_t d, unsigned long long *to) {
  if (d->index == 1) return NOT_SUPPORTED;
  GIVE(d, to, 123456789012ULL);
}
int nvmlDeviceGetMemoryInfo_v2(device_t d, memory_t *to) {
  if (to->version != (sizeof(memory_t) | 2 << 24)) return 25; /* ARGUMENT_VERSION_MISMATCH */
  memory_t m = {to->version, 85520809984ULL, 512ULL << 20, (81559ULL - 512 - 70000) << 20, 70000ULL << 20};
  GIVE(d, to, m);
}
int nvmlDeviceGetTotalEccErrors(device_t d, int error, int counter, unsigned long long *to) {
  if (d->index == 1) return NOT_SUPPORTED;
  GIVE(d, to, 10 + 2 * error + counter); /* error 0 corrected, 1 uncorrected; counter 0 volatile, 1 aggregate */
}
int nvmlDeviceGetRemappedRows(device_t d, unsigned *corrected, unsigned *not, unsigned *pending, unsigned *failed) {
  if (d->index == 1) return NOT_SUPPORTED;
  *not = 2; *pending = 0; *failed = 1;
  GIVE(d, corrected, 5);
}
int nvmlEventSetCreate(void **set) { *set = registered; return OK; }
int nvmlDeviceRegisterEvents(device_t d, unsigned long long types, void *set) {
  if (set != registered) return 2;
  registered[d->index] = types;
  return OK;
}
int nvmlEventSetWait_v2(void *set, event_t *to, unsigned ms) {
  unsigned gpu, xid;
  if (!ready || access(path("gone"), F_OK) == 0) return UNINITIALIZED;
  if (!events && (events = fopen(path("xid"), "r"))) unlink(path("xid"));
  if (events && fscanf(events, "%u %u", &gpu, &xid) == 2 && registered[gpu] & 8) { /* nvmlEventTypeXidCriticalError */
    *to = (event_t){&gpus[gpu], 8, xid, ~0u, ~0u};
    return OK;
  }
  if (events) fclose(events);
  events = NULL;
  return TIMEOUT;
}
