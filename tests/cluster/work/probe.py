"""What a task sees of its container, as JSON in the run directory; with an argument it then waits for a file `go`."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

run = Path(os.environ["XGEN_RUN_DIR"])
DEVICES = Path("/var/lib/xgen-dev-slurm/dev")


def refusal(attempt: Callable[[], object]) -> str:
    """The error of calling it, '' for none."""
    try:
        attempt()
    except OSError as error:
        return error.strerror
    return ""


def opened_by_hand(number: int) -> str:
    """A device file that root in the container makes for itself."""
    node = Path(f"/tmp/{run.name}-gpu{number}")
    try:
        return refusal(lambda: os.mknod(node, 0o20666, os.makedev(60, number))) or refusal(
            lambda: os.open(node, os.O_RDONLY)
        )
    finally:
        node.unlink(missing_ok=True)


seen = {
    "environment": {name: os.environ.get(name) for name in ("GREETING", "LINES", "TOKEN", "HOME", "CLIENT_ONLY")},
    "opened": [refusal(lambda n=n: os.open(DEVICES / f"fakegpu{n}", os.O_RDONLY)) for n in range(8)],
    "opened_by_hand": [opened_by_hand(number) for number in range(8)],
    "code": refusal(lambda: (run / "code/written").write_text("")),
    "system": refusal(lambda: Path("/usr/written").write_text("")),
    "slurm": [name for name in ("scontrol", "srun", "munge") if shutil.which(name)],
    "here": str(Path.cwd()),
    "run": refusal(lambda: (run / "written").write_text("")),
    "uid": os.getuid(),
    "shm": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
    "read_only": refusal(lambda: Path("/data/written").write_text("")) if Path("/data").is_dir() else "absent",
}
(run / f"seen.{os.environ['XGEN_RANK']}.tmp").write_text(json.dumps(seen))
(run / f"seen.{os.environ['XGEN_RANK']}.tmp").rename(run / f"seen.{os.environ['XGEN_RANK']}.json")
deadline = time.monotonic() + 120
while len(sys.argv) > 1 and not (run / "go").exists() and time.monotonic() < deadline:
    time.sleep(0.1)
