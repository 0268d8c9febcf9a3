"""Proves by checksums that it got its secrets, then waits for a file `go` in the run directory."""

import hashlib
import json
import os
import time
from pathlib import Path

run = Path(os.environ["XGEN_RUN_DIR"])
names = ("FROM_ENV", "FROM_FILE", "FROM_COMMAND")
sums = {name: hashlib.sha256(os.environ[name].encode()).hexdigest() for name in names}
file = run / f"sums.{os.environ['XGEN_RANK']}.{os.environ['XGEN_ATTEMPT']}"
file.with_suffix(".tmp").write_text(json.dumps(sums))
file.with_suffix(".tmp").rename(f"{file}.json")
deadline = time.monotonic() + 120
while not (run / "go").exists() and time.monotonic() < deadline:
    time.sleep(0.1)
